"""The model card: the README of a model folder."""

from typing import Any

__all__ = ["model_card"]

_KINDS = {
    "captioner": (
        "image-to-text",
        "[image-captioning, attention]",
        "it tells what a picture shows and where it looked for each word",
        ['    caption = model.caption("picture.jpg")', '    caption.save_gaze("gaze.png")'],
        "It knows only what its training captions speak of, and says the likeliest sentence even "
        "where it sees nothing it knows. Review captions before they are published.",
    ),
    "answerer": (
        "visual-question-answering",
        "[visual-question-answering, attention]",
        "it answers questions about a picture, says how sure it is and where it looked",
        [
            '    answer = model.ask("picture.jpg", "What is on the table?")',
            "    answer.text, answer.confidence, answer.top",
        ],
        "It knows only the answers of its list and the words of its training questions, and many "
        "questions can be answered without looking: see the question-only figures of its "
        "evaluation, and ask with `--evidence`.",
    ),
}


def model_card(config: dict[str, Any], metrics: dict[str, Any]) -> str:
    """What a model is, how it was made, what it can do.

    Args:
        config: of the model folder.
        metrics: what was measured, as ``gazetell evaluate --json`` prints.
    """
    kind = config["kind"]
    task, tags, does, use, limits = _KINDS[kind]
    network, encoder, about = config[kind], config["encoder"], config["about"]
    sizes = [f"embedding {network['embedding']}", f"hidden {network['hidden']}"]
    sizes.append(f"vocabulary {network['vocabulary']}")
    if kind == "answerer":
        sizes.append(f"answers {network['answers']}")
    lines = [
        "---",
        "library_name: gazetell",
        f"pipeline_tag: {task}",
        f"tags: {tags}",
        "---",
        f"# {network['architecture']} on {about.get('dataset', 'unnamed data')}",
        "",
        f"A gazetell {kind}: {does}.",
        "",
        "    import gazetell",
        '    model = gazetell.load("FOLDER")',
        *use,
        "",
        f"- Encoder: {encoder['name']}, weights {encoder['weights']}, layer {encoder['layer']}, "
        f"{encoder['size']} px, trained: {encoder['trainable']}",
        f"- Network: {', '.join(sizes)}",
        *(f"- {key.capitalize()}: {value}" for key, value in about.items()),
        "",
        "## Measured",
        "",
        *_measured(kind, metrics),
        "",
        "## Limits",
        "",
        limits,
    ]
    return "\n".join(lines) + "\n"


def _measured(kind: str, metrics: dict[str, Any]) -> list[str]:
    """The table of what was measured."""
    rows = [
        f"| {name} | {value:.4f} |"
        for name, value in metrics.get("metrics", {}).items()
        if isinstance(value, float)
    ]
    if not rows:
        return ["Not evaluated yet: `gazetell evaluate RUN --data DIR`."]
    what = (
        f"{metrics.get('pictures', '?')} pictures), beam {metrics.get('beam', '?')}"
        if kind == "captioner"
        else f"{metrics.get('questions', '?')} questions)"
    )
    return [
        f"On {metrics.get('split', '?')} ({what}:",
        "",
        "| metric | value |",
        "|---|---|",
        *rows,
    ]
