"""Rules for the tokens of captions, following the Penn Treebank's conventions.

`tokenize` tries the rules of a position and takes the longest token matched by any of them. The
rules reproduce the output of Stanford's tokenizer (CoreNLP 3.4.1) with one intended difference:
each sign has one spelling. '90s has the same tokens with a curly or a straight apostrophe, and all
hyphens are `-`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

# pycocoevalcap's list, without -LRB- and so on, which never match lower-case tokens.
PUNCTUATION = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])
DROPPED = PUNCTUATION | {'"', "---", "----"}

# One spelling for each sign, applied before the rules.
SPELLINGS = str.maketrans(
    {
        **dict.fromkeys("’‛\x92", "'"),
        **dict.fromkeys("‘‹›\x91", "`"),
        **dict.fromkeys("“”«»\x93\x94", '"'),
        **dict.fromkeys("–—―\x96\x97", " -- "),
        **dict.fromkeys("‐‑", "-"),
        **dict.fromkeys("…\x85", " ... "),
        **dict.fromkeys("€₠¤\x80", " $ "),
        "£": " # ",
        "¢": " cents ",
        "\u00ad": "",  # soft hyphen
        "½": " 1/2 ",
        "¼": " 1/4 ",
        "¾": " 3/4 ",
        "⅓": " 1/3 ",
        "⅔": " 2/3 ",
    }
)
ENTITIES = {
    "&amp;": "&",
    "&lt;": "<",
    "&gt;": ">",
    "&quot;": '"',
    "&apos;": "'",
    "&nbsp;": " ",
    "&mdash;": " -- ",
    "&ndash;": " -- ",
}
ENTITY = re.compile("|".join(ENTITIES), re.IGNORECASE)

BRACKETS = str.maketrans(
    {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
)

# Words that are split into two tokens.
SPLIT_WORDS = {
    "cannot": ["can", "not"],
    "gimme": ["gim", "me"],
    "gonna": ["gon", "na"],
    "gotta": ["got", "ta"],
    "lemme": ["lem", "me"],
    "wanna": ["wan", "na"],
    "'tis": ["'t", "is"],
    "'twas": ["'t", "was"],
}

# Words that contain an apostrophe.
CONTRACTED = "c'est c'mon cap'n e'er ev'ry nat'l ne'er ol' qu'il"

# Abbreviations that always include their period: titles, names, companies, places, dates, others.
ABBREVIATIONS = """
    adm atty capt cmdr col cpl det dr esq gen gov hon insp lt maj messrs mlle mme mr mrs ms pfc ph
    pres prof pvt rep reps rev sen sens sfc sgt spc supt treas
    al alex jos jr sr st ste wm
    assn assoc asst bhd bldg brig bros cie co corp cos dept elec inc ind intl invt ltd mfg natl
    plc pte pty sys univ
    ala ariz ave blvd calif colo conn ct fla ft ga kan kans ky md mich minn mo mont mt neb nev
    okla penn rd rt sq tenn va vt wis wisc wyo
    apr aug dec feb fri jan jul jun mar mon nov oct sep sept thu thurs tue tues wed
    adj adv cf est etc ext seq tel vs
"""
# Abbreviations only when capitalized: "Mass." the state, but "a mass." of people.
CAPITAL_ABBREVIATIONS = "Ark Del Ill La Mass Miss Ore Pa Tex Wash"
# Abbreviations only before a number: "no. 5" and "pp. 4-6", but "oh no."
NUMBER_ABBREVIATIONS = "art ca fig figs no nos op pp prop"

# Words that begin a new sentence after "plan B.", where the period ends the first one.
SENTENCE_STARTERS = """
    A About According After An As At But Earlier He Her Here However If In It Last Many More Now
    Once One Other Our She Since So Some Such That The Their Then There These They This We What
    When While Yet You
"""


def _any(words: str, *forms: Callable[[str], str]) -> str:
    """Returns a pattern that matches any of the words in any of the forms."""
    spellings = dict.fromkeys(form(word) for word in words.split() for form in forms)
    return f"(?:{'|'.join(spellings)})"


_CASES = (str.lower, str.upper, str.capitalize)
_CAPITALIZED = (str.upper, str.capitalize)

# Unicode blocks of signs. All other characters are letters, including accents and vowel signs.
_SIGNS = (
    r"\x00-/:-@\[-`{-©«-´¶-¹»-¿×÷\u0589\u05be\u060c\u061b\u061f\u066a-\u066d\u06d4\u0964\u0965"
    r"\u2000-\u2bff\u3000-\u303f\u30fb\ud800-\uf8ff\ufe00-\ufe0f\ufeff"
    r"\uff00-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65\ufff0-\uffff\U00010000-\U0010ffff"
)
_L = rf"[^\d{_SIGNS}]"  # a letter
_A = rf"[^{_SIGNS}]"  # a letter or digit
_END = rf"(?!{_A})"  # end of a word
_WORD = rf"{_A}+(?:_{_A}+)*"  # dog, 5th, snow_board
_DOTTED = rf"{_L}{_A}*(?:\.{_L}{_A}*)*"  # dog, U.S
_NUMBER = r"[.,:]?\d+(?:[.,:]\d+)*"  # 5, 1,000.50, 10:30, .5
_INITIALS = r"(?:[A-Za-z]\.){2,}"  # U.S.
_ELIDED = "(?:[DLOdlo]')?"
_HYPHENED = rf"{_ELIDED}(?:{_DOTTED}\.?|{_NUMBER}|{_WORD})(?:-(?:{_INITIALS}|{_ELIDED}{_WORD}))+"
_HALF = rf"{_A}+(?:-{_L}+)*"  # of black/blue-green
_NEW_SENTENCE = rf"\s+{_any(SENTENCE_STARTERS, *_CAPITALIZED)}(?!\S)"
_PATH = r"[^\s\"<>|(){}]*[^\s\"<>|(){}.,;:!?'-]"  # of a URL, without a final full stop

# Rules for tokens that begin with a letter or digit; comments show what they match, up to |.
WORD_RULES = {
    "word": rf"{_A}+?(?=[nN]['`][tT])|{_WORD}",  # dog, 5th, 4x4s, snow_board, do|n't
    "negation": rf"[nN]['`][tT]{_L}*",  # n't
    "elision": rf"(?:[DLNOdlno]|[A-HJ-XZ])'{_A}{_A}+",  # o'clock, O'Malley, d'oeuvre
    "between vowels": rf"{_L}+[AEIOUYaeiouy]'[AEIOUaeiou]{_L}*",  # ski'ing, ma'am
    "before an apostrophe": rf"[Dd]'|[JYjy]'(?={_L})",  # d'|, y'|all
    "contracted": _any(CONTRACTED, *_CASES) + rf"|[Ss]'mores|[Ss]omethin'{_END}",  # c'mon
    "hyphened": _HYPHENED,  # t-shirt, 3.5-inch, U.S.-based
    "prefix": r"(?:[Aa]nti|[Pp]ro)-",  # pro-|
    "dotted": rf"{_L}{_A}*(?:[.!?]{_L}{_A}*)+",  # foo.jpg, signal.Street, foo!bar
    "initial": rf"[A-Za-z]\.(?!{_NEW_SENTENCE})",  # J.| Smith, plan b|. The
    "acronym": r"[A-Za-z](?:\.[A-Za-z])+\.?|Ph\.D\.",  # U.S., p.m., T.V
    "abbreviation": rf"(?:{_any(ABBREVIATIONS, *_CASES)}"  # Mr., st.
    rf"|{_any(CAPITAL_ABBREVIATIONS, *_CAPITALIZED)})\.",  # Mass.
    "before a number": rf"{_any(NUMBER_ABBREVIATIONS, *_CASES)}\.(?=\s?\d)",  # no.| 5
    "before a comma": rf"(?:{_HYPHENED}|{_DOTTED}|{_WORD})\.(?=[,;:])",  # dog.|,
    "slashed": rf"{_HALF}(?:\\?/{_HALF}){{1,2}}",  # and/or, 1/2/2010
    "fraction": r"\d+-\d+/\d+",  # 2-1/2
    "number": _NUMBER,  # 1,000.50, 10:30|am
    "capitals": r"[A-Z]+(?:[&+][A-Z]+)+",  # AT&T, A+B
    "language": r"[Cc]\+\+|[CFcf]#",  # C++
    "dollars": r"[A-Z]{1,3}\$",  # US$|5
    "e-mail": r"[\w.+-]{1,64}@[\w.-]*\w",  # a@b.com
    "site": rf"(?:{_A}+\.){{1,8}}(?:com|edu|net|org)/{_PATH}",  # foo.com/cat
    "URL": rf"(?:[Hh]ttps?://|HTTPS?://|www\.){_PATH}",  # http://foo.com/a?b=c
}

# Rules for tokens that begin with a sign: possible first signs, and the pattern.
SIGN_RULES = {
    "clitic": ("'", rf"'(?:[DdMmSs]|LL|ll|RE|re|VE|ve)(?!{_L})"),  # dog|'s, she|'ll
    "clipped": ("'", rf"'(?:[Tt]is|[Tt]was|em|till?|cause|Em|Till?|Cause|EM){_END}"),  # 'til
    "and": ("'", rf"'[Nn](?:'|{_END})"),  # rock|'n'|roll
    "years": ("'", rf"'\d\d(?:s{_END}|(?![\"'\w]))"),  # '90s, '99
    "quotes": ("'`", r"''|``"),
    "number": ("+-.,:", rf"[-+]?{_NUMBER}"),  # -5, .5
    "bracket": ("-", r"-(?:[LR][CRS]B|[lr][crs]b)-"),  # -LRB-
    "dashes": ("-", r"-+"),
    "dots": (".", r"\.{3}"),
    "hashtag": ("#", rf"#{_L}+"),  # #dog
    "handle": ("@", r"@[A-Za-z_]\w*"),  # @dog
    "entity": ("&", r"&#\d+;"),  # &#39;
    "tag": ("<", r"<[/!?]?[A-Za-z](?:[\w\s.:@-]|=\"[^\"<>]*\")*[/?]?>"),  # <b>, <a href="x">
    "comment": ("<", r"<!--[^<>]*-->"),
    "emoticon": ("<>:;=", rf"[<>]?[:;=](?:-|o|')?[()\[\]DPdp|@]{_END}|:3{_END}"),  # :-)
    "face": ("^->", r"\^_\^|-_-|>_<"),
    "telephone": ("(", r"\(\d{3}\) ?\d{3}[-. ]\d{4}"),  # (555) 555-1234
    "repeated": ("!?*_@#<>", r"[!?]{2,}|\*+|_+|@+|#+|<<|>>"),
}
# Other signs that are tokens; emoji are not.
SIGN = r"[!-~¡-¿×÷\u2016-\u2042\u2070-\u214f\u2190-\u2bff\u3001-\u3012\u30fb\uff01-\uff65]"
