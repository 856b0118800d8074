"""Every message of the code, read from its source; ``make messages`` prints them all."""

import ast
import re
from pathlib import Path

import pytest

import gazetell
from gazetell import errors

ROOT = Path(gazetell.__file__).parent
RAISED = {name for name in vars(errors) if name.endswith("Error")} | {"BadValue", "ValueError"}
SAID = RAISED | {"Problem", "report", "warning"}  # errors, answers of the service, notes


def written(node):
    """The text of an expression, with ``{name}`` for what is known only when it runs."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            f"{{{ast.unparse(x.value)}}}" if isinstance(x, ast.FormattedValue) else written(x)
            for x in node.values
        )
    if isinstance(node, ast.BinOp):
        return written(node.left) + written(node.right)
    return f"{{{ast.unparse(node)}}}"


def messages(root=ROOT):
    """Yield (file:line, class or function, message) of every error and note."""
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and node.args:
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                if name in SAID:
                    where = f"{path.relative_to(root)}:{node.lineno}"
                    yield (
                        where,
                        name,
                        written(node.args[1 if name == "Problem" and len(node.args) > 1 else 0]),
                    )


EVERY = list(messages())
# "is no picture", "of X alone", and words of a traceback.
UNCLEAR = re.compile(
    r"(?<![Tt]here )\bis no (?!longer)|\bare no (?!longer)|\balone\b|\bholds \S+ already"
    r"|\bin the house\b|\banew$|Traceback|Exception\b",
)


def test_the_messages_are_found(tmp_path):
    """Of every kind, f-strings with their fields, and texts in pieces."""
    assert {name for _, name, _ in EVERY} >= {"UsageError", "DataError", "ImageError", "ModelError"}
    assert len(EVERY) > 600
    (tmp_path / "a.py").write_text(
        'raise DataError(f"{path}: is " "not " + f"a {kind}")\nraise UsageError(why)\n'
    )
    assert list(messages(tmp_path)) == [
        ("a.py:1", "DataError", "{path}: is not a {kind}"),
        ("a.py:2", "UsageError", "{why}"),
    ]


@pytest.mark.parametrize("bad", ["x: is no plan", "grids of pictures alone", "run holds a already"])
def test_an_unclear_message_is_seen(bad):
    assert UNCLEAR.search(bad)


def test_messages_are_one_line_of_plain_english():
    wrong = []
    for where, name, text in EVERY:
        said = re.sub(r"\{[^{}]*\}", "X", text)
        if (
            "\n" in said
            or (name in RAISED and "  " in said)
            or said.endswith(" ")
            or UNCLEAR.search(said)
        ):
            wrong.append(f"{where} {name}: {text}")
    assert not wrong, "\n".join(wrong)


def test_what_a_message_names_stands_before_a_colon():
    """``FILE: ...``, ``--option VALUE: ...``: what was found follows the colon."""
    wrong = [
        f"{where} {name}: {text}"
        for where, name, text in EVERY
        if re.match(r"\{(path|file|folder|out)\}[^:{]* (is|has) ", text) and ":" not in text
    ]
    assert not wrong, "\n".join(wrong)


if __name__ == "__main__":
    print(*(f"{name:<15} {text}  ({where})" for where, name, text in EVERY), sep="\n")
