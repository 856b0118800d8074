"""Splits captions into words as the official captioning metrics do, without Java.

The COCO caption evaluation splits every caption with the Penn Treebank tokeniser of Stanford
CoreNLP 3.4.1 (options -preserveLines -lowerCase) and drops punctuation. BLEU, ROUGE-L and CIDEr
count the words that this leaves, so a score is only comparable if the splitting is the same.
`split` gives those words in pure Python: "don't" is "do" "n't", "a dog's T-shirt." is
"a" "dog" "'s" "t-shirt". Its habits are kept, odd ones too: brackets come out as "-lrb-", which
the evaluation does not drop, because it looks for capitals; "end.Start" is one word; "£" is "#".

The tokeniser is a longest-match scanner. A rule is a regular expression. Its group is the token,
the rest is text that must follow and stays unread; without a group all of it is the token. At
each place the rule that matches the most text wins, what must follow included, and the earlier
rule wins a tie. So the order of `RULES` matters. `split` takes a short cut for words that no rule
could touch.

The rules were fitted to what the Java tokeniser prints for millions of strings: all short ones
over small alphabets, all abbreviations of up to five letters, every character, captions,
questions and prose. They were not translated from its grammar. Of 240,000 lines taken at random
from documentation and source code, two came out different: a letter it is too old to know.

Known differences: it reads an astral character (an emoji) as two, so an address that ends in one
is cut elsewhere; and the evaluation joins all captions to one text, so that its last caption
lacks the newline that some rules look for, and "no." before a caption that starts with a number
keeps its full stop. `split` sees one caption.

Reference: Chen et al. 2015, Microsoft COCO Captions: Data Collection and Evaluation Server.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

CJK = (
    "\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3038-\u303c"
    "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9d"
    "\U0001aff0-\U0001b16f\U00020000-\U0003ffff"
)
"""Han, Hiragana and Katakana as ranges for a regular expression."""

# Scripts without blanks between words. A text that was cut into words has shorter runs of their
# letters, on average, than the number says.
_UNSPACED = {
    "Chinese or Japanese": (re.compile(f"[{CJK}]+"), 3),
    "Thai": (re.compile("[\u0e01-\u0e3a\u0e40-\u0e4e]+"), 8),
    "Lao": (re.compile("[\u0e81-\u0ecd]+"), 8),
    "Khmer": (re.compile("[\u1780-\u17d3]+"), 8),
    "Burmese": (re.compile("[\u1000-\u1049]+"), 8),
}


class Rule:
    """A shape of token.

    ``starts`` names the ASCII characters it can start with: "a" letters, "1" digits, "." the rest;
    every rule is tried on a character beyond ASCII. ``write`` makes the tokens to print of the
    text that was read (the default prints it in lower case). ``any_case`` is not for a pattern
    with `_L` or its like: the letters they leave out would take their capitals or small letters
    with them.
    """

    def __init__(
        self,
        starts: str,
        pattern: str,
        write: Callable[[str], list[str]] | None = None,
        any_case: bool = False,
    ) -> None:
        self.starts, self.write = starts, write
        self.pattern = re.compile(pattern, re.IGNORECASE if any_case else 0)


# Letters and digits are Python's, less numerals in circles and the like, letters that came into
# Unicode after the tokeniser's table was made, and all beyond U+FFFF: it does not read those.
_NO_LETTER = (
    "\u00b2\u00b3\u00b9\u00bc-\u00be\u037f\u0528-\u052f\u1c80-\u1cbf\u2070\u2074-\u2079"
    "\u2080-\u2089\u2150-\u2182\u2185-\u2189\u2460-\u249b\u24ea-\u24ff\u2776-\u2793"
    "\u3007\u3021-\u3029\u3038-\u303a\u3220-\u3229"
    "\u3280-\u3289\ua794-\ua79f\ua7ab-\ua7f7\uab30-\uab69\uab70-\uabbf\U00010000-\U0010ffff"
)
# Combining marks and a few signs count as letters, but never join a digit that precedes them.
_MARK = (
    "\u02c2-\u036f\u0375\u0378\u0379\u0384\u0385\u03f6\u0483-\u0487\u055a-\u055f\u0591-\u05bd"
    "\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0615-\u061a\u064b-\u065e\u0670\u06d6-\u06e4"
    "\u06e7-\u06ed\u06fd\u06fe\u070f\u0711\u0730-\u074c\u07a6-\u07b0\u07eb-\u07f3\u0900-\u0903"
    "\u093c\u093e-\u094e\u0951-\u0955\u0962\u0963\u0981-\u0983\u09bc\u09be-\u09c4\u09c7\u09c8"
    "\u09cb-\u09cd\u09d7\u09e2\u09e3\u0a01-\u0a03\u0a3c\u0a3e-\u0a4f\u0a81-\u0a83\u0abc"
    "\u0abe-\u0acf\u0b82\u0bbe-\u0bc2\u0bc6-\u0bc8\u0bca-\u0bcd\u0c01-\u0c03\u0c3e-\u0c56"
    "\u0d3e-\u0d44\u0d46-\u0d48\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ecd"
)
_SYMBOL = (
    "$%&/+=<>|\\\\^~\u00a1\u00a5-\u00a9\u00ac\u00ae-\u00b4\u00b6-\u00b9\u00bf\u00d7\u00f7\u037e"
    "\u0387\u0589\u05be\u05c0\u05c3\u05c6\u05f3\u05f4\u0600-\u0603\u0606-\u060c\u0614\u061b"
    "\u061e\u061f\u066a\u066d\u06d4\u0700-\u070d\u07f6-\u07f8\u0964\u0965\u0e3f\u0e4f\u1fbd"
    "\u2016\u2017\u201a\u201e-\u2023\u2030-\u2038\u203b\u203e-\u2042\u2044\u2070\u2074-\u207e"
    "\u2080-\u208e\u20a4\u2100\u2101\u2103-\u2106\u2108\u2109\u2114\u2116-\u2118\u211e-\u2123"
    "\u2125\u2127\u2129\u212e\u213a\u213b\u2140-\u2144\u214a-\u214d\u214f\u2155-\u215e"
    "\u2190-\u2bff\u3001\u3002\u3012\u30fb\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"
    "\uffe0\uffe1\uffe5\uffe6"
)

_L = rf"(?:[^\W\d_{_NO_LETTER}]|[{_MARK}])"  # letter or mark
_LD = rf"(?:[^\W_{_NO_LETTER}]|[{_MARK}])"  # letter, mark or digit
_PLAIN_L = rf"[^\W\d_{_NO_LETTER}]"
_PLAIN_LD = rf"[^\W_{_NO_LETTER}]"
_D = "[^\\D\U00010000-\U0010ffff]"
_NO_ASCII_LETTER = "[^A-Za-z]"
_BLANK = r"[ \t\u00a0]"
_BLANK_NL = r"[ \t\n\u00a0]"

_APOSTROPHE = "(?:['’]|&apos;)"
_QUOTE = "(?:['’‘‛`]|&apos;)"  # also what people type for an apostrophe
_HYPHEN = "[-_\u058a\u2010\u2011]"

# The bounds below (500 characters, 20 parts) keep the splitter fast on text without blanks.
# "end.Start", "what?no" and "a.b" are one token: the full stop has no space after it.
_WORD = rf"{_L}{_LD}*(?:[.!?]{_L}{_LD}*)*"
_PIECE = rf"(?:[dDoOlL]{_QUOTE}{_PLAIN_LD}{{2,}}|{_PLAIN_LD}+)"
_COMPOUND = rf"{_PIECE}(?:{_HYPHEN}{_PIECE})*"  # t-shirt, jack-o'lantern, file_name, 4x4
_INITIALS_END = r"[A-Za-z](?:\.[A-Za-z])+\."
_DOTTED = rf"[A-Za-z0-9][A-Za-z0-9.,]{{0,500}}(?:-(?:{_INITIALS_END}|[A-Za-z0-9]+))+"  # anti-U.S.
_SLASHED = r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}"
_AMPERSAND = r"[A-Z]+(?:(?:[+&]|&amp;)[A-Z]+)+"

_NAME = r"[A-Za-z][A-Za-z0-9_:.\-]*"
_VALUE = r"\s*=\s*(?:\"[^\"\n]*\"|'[^'\n]*')"
_TAG = rf"(?:<{_NAME}(?:\s+{_NAME}(?:{_VALUE})?)*\s*/?\s*>|</{_NAME}\s*>|<[!?][A-Za-z-][^>\n]*>)"
_URL_CHAR = r"[^ \t\n\f\r\"<>|()"
_URL_LAST = r"[^ \t\n\f\r\"<>|.!?(){},\-]"
_WWW = r"[wW]{3}\.(?:[^ \t\n\f\r\"<>|.!?(){},]+\.)"
# A name before .com and the like is cut at digits and capitals, which other rules read.
_HOST = r"(?:[^ \t\n\f\r\"'`!$(){}|,\-./0-9:;<=>?@A-Z\[\\\]^_]{1,500}\.)"
_DOMAIN = "(?i:com|net|org|edu)"

# Abbreviations whose full stop is theirs: before anything, or only if no letter follows at once
# ("inc.xy" is "inc." "xy", "mr.xy" is a word with a dot in it).
_ENDING = (
    "al|ala|apr|ariz|assn|aug|bhd|bldg|blvd|bros|calif|co|colo|conn|corp|cos|ct|dak|dec|ed\\.d|"
    "esq|est|etc|ext|feb|fla|fri|ga|inc|ind|intl|jan|jr|jul|jun|kan|kans|ky|ltd|mar|md|mich|minn|"
    "mo|mon|mont|neb|nev|nov|oct|okla|penn|ph\\.d|plc|rd|rt|sep|sept|seq|sq|sr|sys|tel|tenn|thu|"
    "thurs|tue|tues|univ|va|vt|wed|wis|wisc|wyo"
)
_TITLES = (
    "adj|adm|adv|alex|assoc|asst|attys?|ave|brig|capt|cf|cie|cmdr|col|comdr|cpl|dept|det|drs?|"
    "elec|ens|ft|gen|govs?|hon|insp|invt|jos|lieut|lt|maj|messrs|mlle|mme|mr|mrs|ms|msgr|mt|natl|"
    "pfc|ph|pres|profs?|pvt|reps?|rev|sens?|sfc|sgt|spc|st|ste|supts?|treas|vs|wm"
)
_COMPANIES = "(?i:pp?t)[ey](?i:s?)"  # not in capitals: the vowel is small
_TRADE = "(?i:m)[ft](?i:g)"  # so is this middle letter, and no letter may follow at once
_STATES = "A(?i:rk|z)|D(?i:el)|I(?i:ll)|L(?i:a)|M(?i:ass|iss)|O(?i:re)|P(?i:a)|T(?i:ex)|W(?i:ash)"
_NUMBERED = "art|ca|figs?|nos?|op|pp|prop"  # an abbreviation only before a number: "no. 5"

# Words that start a sentence, so that an initial before them is a word and a full stop.
_STARTERS = (
    "A(?i:bout|ccording|dditionally|fter|n|s|t)?|B(?i:ut)|E(?i:arlier)|H(?i:er?|ere|owever)|"
    "I(?i:f|n|t)|L(?i:ast)|M(?i:any|ore|[rs]\\.)|N(?i:ow)|O(?i:nce|ne|ther|ur)|"
    "S(?i:he|ince|o|ome|uch)|T(?i:hat|he|heir|hen|here|hese|hey|his)|W(?i:e|hat|hen|hile)|"
    "Y(?i:et|ou)"
)
_APOSTROPHE_WORDS = (
    rf"{_APOSTROPHE}n{_APOSTROPHE}?|[ldj]{_APOSTROPHE}|dunkin{_APOSTROPHE}|somethin{_APOSTROPHE}|"
    rf"ol{_APOSTROPHE}|{_APOSTROPHE}em|{_APOSTROPHE}[2-9]0s|{_APOSTROPHE}till?|{_APOSTROPHE}cause|"
    rf"nor'easter|c'mon|e'er|s'mores|ev'ry|li'l|nat'l|cap'n|ne'er|o{_QUOTE}o"
)
_EXTENSIONS = (
    "bat|bmp|c|class|cgi|cpp|dll|doc|docx|exe|gif|gz|h|htm|html|jar|java|jpeg|jpg|mov|mp3|pdf|php|"
    "pl|png|ppt|ps|py|sql|tar|txt|wav|x|xml|zip"
)
_JOINED = {"can": "not", "gon": "na", "got": "ta", "lem": "me", "gim": "me", "wan": "na"}

_ENTITIES = {"&lt;": "<", "&gt;": ">", "&amp;": "&"}
_PRINTED = {"€": "$", "¤": "$", "\u20a0": "$", "£": "#", "¢": "cents"}
_PRINTED |= {"½": "1/2", "¼": "1/4", "¾": "3/4", "⅓": "1/3", "⅔": "2/3"}
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_QUOTES = {"‘": "`", "‛": "`", "‹": "`", "`": "`", "’": "'", "›": "'", "‚": "‚"}
_QUOTES |= {"“": "``", "«": "``", "”": "''", "»": "''", "„": "„"}

ABBREVIATION = re.compile(
    rf"(?:{_ENDING}|{_TITLES}|{_COMPANIES}|{_TRADE}|{_STATES}|{_NUMBERED})", re.IGNORECASE
)
"""A superset of the words that may keep a full stop."""

JOINED = {first + second: [first, second] for first, second in _JOINED.items()}
"""Words that are written as one and count as two."""


def _nothing(token: str) -> list[str]:
    return []


def _straight(token: str) -> list[str]:
    """Typographic apostrophes straight, in lower case."""
    text = token.lower().replace("&apos;", "'").replace("’", "'")
    return [text.replace("‘", "`").replace("‛", "`")]


def _unbroken(token: str) -> list[str]:
    """A token with blanks in it stays one: they become no-break spaces."""
    return [token.lower().replace(" ", "\u00a0")]


def _in_letters(token: str) -> list[str]:
    """Round brackets inside a token are printed in letters, as they are outside."""
    return _unbroken(token.replace("(", "-lrb-").replace(")", "-rrb-"))


RULES: tuple[Rule, ...] = (
    # Markup and addresses.
    Rule(".", _TAG, _unbroken),
    Rule("a", rf"https?://{_URL_CHAR}{{}}]+{_URL_LAST}", any_case=True),
    Rule("a", rf"{_WWW}+[a-zA-Z]{{2,4}}"),
    Rule("a", rf"{_WWW}+?[a-zA-Z]{{2,4}}/{_URL_CHAR}]+{_URL_LAST}"),
    Rule("a.", rf"{_HOST}{{1,20}}{_DOMAIN}"),
    Rule("a.", rf"{_HOST}{{1,20}}?{_DOMAIN}/{_URL_CHAR}]+{_URL_LAST}"),
    Rule(
        "a1.",
        rf"(?:<|&lt;)?[a-zA-Z0-9]{_URL_CHAR}{{}}\u00a0]{{0,500}}@{_URL_CHAR}{{}}\u00a0.]+"
        rf"(?:\.{_URL_CHAR}{{}}\u00a0.]+)*(?:>|&gt;)?",
    ),
    Rule(".", r"@[A-Za-z_][A-Za-z0-9_]*"),
    Rule(".", rf"#{_PLAIN_L}+"),
    Rule(".", r"&(?:lt|Lt|LT|gt|Gt|GT|amp|AMP);", lambda token: [_ENTITIES[token.lower()]]),
    Rule(".", r"&(?:quot|nbsp|apos|mdash|ndash|MD);", _nothing),
    Rule(".", r"&(?:#[0-9]+|QUOT|odq|cdq);"),
    # Words, and words that lose an ending: dog 's, do n't, can not.
    Rule("a", _WORD),
    Rule("a", rf"({_WORD}){_APOSTROPHE}(?i:[msd]|ll|re|ve)"),
    Rule("a", rf"([A-Za-z]*[A-MO-Z])n{_QUOTE}t", any_case=True),
    Rule("a", rf"n{_QUOTE}t", _straight, any_case=True),
    Rule(".", rf"('(?:[msd]|ll|re|ve)){_NO_ASCII_LETTER}", any_case=True),
    Rule(".", r"(?:’|&apos;)(?:[msd]|ll|re|ve)", _straight, any_case=True),
    *(
        Rule("a", rf"({first}){second}{_NO_ASCII_LETTER}", any_case=True)
        for first, second in _JOINED.items()
    ),
    Rule(".", r"('t)(?:is|was)", any_case=True),
    Rule(".", "-[lr][rcs]b-", any_case=True),
    # Abbreviations. Those that may end a sentence look two characters ahead.
    Rule("a", rf"((?:{_ENDING})\.)[\s\S]{{2}}", any_case=True),
    Rule("a", rf"((?:{_COMPANIES}|{_STATES})\.)[\s\S]{{2}}"),
    Rule("a", rf"(?:{_TITLES})\.", any_case=True),
    Rule("a", rf"{_TRADE}\."),
    Rule("a", rf"((?:{_NUMBERED})\.){_BLANK}*[0-9]", any_case=True),
    # Words with an apostrophe in them: D'Angelo, Hawai'i, y' all, 'em, '90s.
    Rule("a", rf"[A-HJ-XZn]{_QUOTE}{_PLAIN_L}{{2,}}"),
    Rule("a", rf"{_PLAIN_L}+[aeiouyAEIOUY]{_QUOTE}[aeiouA-Z]{_PLAIN_L}*"),
    Rule("a", rf"([yY]{_APOSTROPHE}){_PLAIN_L}"),
    Rule("a.", _APOSTROPHE_WORDS, any_case=True),
    Rule("a", r"cont'd\.?"),
    Rule(".", rf"({_APOSTROPHE}[0-9]{{2}}){_BLANK_NL}"),
    # Compounds, numbers and names made of several parts.
    Rule("a1", _COMPOUND),
    Rule("a1", _DOTTED),
    Rule("a1", rf"{_SLASHED}(?:\\?/{_SLASHED}){{1,2}}"),
    Rule("a", _AMPERSAND, lambda token: [token.lower().replace("&amp;", "&")]),
    Rule("a", r"[cC]\+\+|[cCfF]#"),
    Rule("1.", rf"[-+]?(?:{_D}*(?:[.:,\u066b\u066c]{_D}+)+|{_D}+)"),
    Rule("1", r"[0-9]{1,2}[-/][0-9]{1,2}[-/][0-9]{2,4}"),
    Rule("1", r"(?:[0-9]{1,4}[- \u00a0])?[0-9]{1,4}(?:\\?/|\u2044)[0-9]{1,4}", _unbroken),
    Rule(
        "1.",
        r"(?:\([0-9]{2,3}\)[ \u00a0]?|(?:\+\+?)?(?:[0-9]{2,4}[- \u00a0])?[0-9]{2,4}[- \u00a0])"
        r"[0-9]{3,4}[- \u00a0]?[0-9]{3,5}",
        _in_letters,
    ),
    Rule("1.", r"(?:(?:\+\+?)?[0-9]{2,4}\.)?[0-9]{2,4}\.[0-9]{3,4}\.[0-9]{3,5}"),
    Rule("a", r"[A-Z]+\$"),
    Rule("a", rf"([A-Za-z])\.{_BLANK}+(?:{_STARTERS}|{_TAG}){_BLANK_NL}"),
    Rule("a", r"(?:[A-Za-z]\.)+"),
    Rule("a1", rf"({_LD}+(?:\.{_LD}+)*\.(?i:{_EXTENSIONS}))[ \t\n\u00a0.?!,]"),
    # A full stop before a comma belongs to the word.
    *(Rule("a1", rf"({shape}\.)[,;:、]") for shape in (_WORD, _COMPOUND, _DOTTED, _AMPERSAND)),
    # Emoticons, runs and single signs.
    Rule(".", r"([<>]?[:;=]['\-*o]?[()DPdpO\[\]{@|\\])[^A-Za-z0-9]", _in_letters),
    Rule("a.", r"[\-^x=~<>']_[\-^x=~<>']"),
    Rule(".", r"\([\-^x=~<>'][_.]?[\-^x=~<>']\)|\([\^x=~<>']-[\^x=~<>']\)", _in_letters),
    Rule(".", r"(')[A-Za-z][^ \t\n\r\u00a0]", _nothing),
    Rule(".", r"[!?]+|#+|@+|\*+|(?:\\\*){1,3}|_+|<<|>>|-{5,}"),
    Rule(".", rf"\.{{3,5}}|\.{_BLANK}\.{_BLANK}\.|-{{2,4}}|''|``", _nothing),
    Rule(
        ".",
        "[\u207a\u207b\u208a\u208b]?(?:[\u00b2\u00b3\u00b9\u2070\u2074-\u2079]+|[\u2080-\u2089]+)",
    ),
    Rule(".", f"[{_SYMBOL}]"),
    Rule(
        ".", f"[{''.join(_QUOTES)}]{{2}}", lambda token: ["".join(_QUOTES[mark] for mark in token)]
    ),
    Rule(".", f"[{''.join(_PRINTED)}]", lambda token: [_PRINTED[token]]),
    Rule(".", r"[()\[\]{}]", lambda token: [_BRACKETS[token]]),
    Rule(".", r"[\"'`‘’‛“”«»‹›,;:.–—―-]", _nothing),
)
"""Every rule, the first of two winning a tie."""

PUNCTUATION = frozenset({
    "''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-",
    ".", "?", "!", ",", ":", "-", "--", "...", ";",
})  # fmt: skip
"""What the evaluation drops. Words are in lower case by then, so the brackets never match."""

# Characters of Windows-1252 that reached the text undecoded; a soft hyphen is not there at all.
_REPAIR = str.maketrans(
    {"\x80": "€", "\x85": "…", "\x91": "‘", "\x92": "’", "\x93": "“", "\x94": "”"}
    | {"\x96": "–", "\x97": "—", "\u00ad": None}
    | dict.fromkeys("\n\r\x0b\x0c\u2028\u2029", " ")
)
# Letters, at most one mark of punctuation, then a blank: nothing else can start here.
_SIMPLE = re.compile(r"([A-Za-z]*)([.,!?]?)[ \n]")


_BY_START = {kind: tuple(rule for rule in RULES if kind in rule.starts) for kind in "a1."}


def split(text: str) -> list[str]:
    """Split a caption into lower-case words.

    Args:
        text: one caption; a line break in it counts as a blank.

    Returns:
        The words; none for a text without any. A telephone number or a fraction such as
        "1 1/2" is one word with no-break spaces (U+00A0) in it.
    """
    # Rules look up to two characters ahead, past the last one too.
    text = text.translate(_REPAIR) + "\n\n"
    end = len(text) - 2
    words: list[str] = []
    at = 0
    while at < end:
        if simple := _SIMPLE.match(text, at):
            word, mark = simple.groups()
            if mark != "." or not (len(word) == 1 or ABBREVIATION.fullmatch(word)):
                if word:
                    word = word.lower()
                    words.extend(JOINED.get(word, [word]))
                at = simple.end()
                continue
        at = _scan(text, at, words)
    return words


def check_pairs(
    references: Mapping[str, Sequence[str]], predictions: Mapping[str, str], what: str
) -> None:
    """Refuse references and predictions that are not of the same pictures or questions."""
    if not references:
        raise ValueError(f"no {what}s to score")
    if references.keys() != predictions.keys():
        first = sorted(references.keys() ^ predictions.keys(), key=str)[0]
        missing = "prediction" if first in references else "reference"
        raise ValueError(f"{what} {first!r} has no {missing}")
    for name, texts in references.items():
        if not texts:
            raise ValueError(f"{what} {name!r} has no references")


def unspaced_texts(texts: Iterable[str]) -> Counter[str]:
    """How many texts are written without blanks between words, by script (its English name).

    `split` takes whole sentences of them for one word, or cuts them at vowel signs: scores of
    such texts tell next to nothing. A text that was cut into words with blanks does not count.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        if text.isascii():
            continue
        for script, (letters, longest) in _UNSPACED.items():
            runs = letters.findall(text)
            if runs and sum(map(len, runs)) > longest * len(runs):
                counts[script] += 1
                break
    return counts


def at_blanks(words: list[str]) -> list[str]:
    """Words cut at no-break spaces too, as pycocoevalcap cuts for BLEU and CIDEr, not ROUGE-L."""
    return " ".join(words).split()


def _scan(text: str, at: int, words: list[str]) -> int:
    """Read the token at ``at`` into ``words`` by the rule that matches most; return its end."""
    first = text[at]
    kind = "a" if first.isalpha() else "1" if first.isdigit() else "."
    rules = _BY_START[kind] if first.isascii() else RULES
    longest, best, write = 0, None, None
    for rule in rules:
        found = rule.pattern.match(text, at)
        if found is not None and found.end() - at > longest:
            longest, best, write = found.end() - at, found, rule.write
    if best is None:
        return at + 1  # a blank, or a character that the tokeniser does not know
    token = best.lastindex or 0
    text = best.group(token)
    printed = write(text) if write else [text.lower()]
    words.extend(word for word in printed if word not in PUNCTUATION)
    return best.end(token)
