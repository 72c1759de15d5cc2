"""The language of code and documentation: terms of docs/glossary.md, and the form of docstrings."""

import ast
import inspect
import re
from pathlib import Path

import pytest

import resnet_tf

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path
    for folder in ("resnet_tf", "configs", "benchmarks", "docs", "examples", "tests")
    for path in (ROOT / folder).rglob("*.py")
    if path != Path(__file__)
)
# The glossary lists the words that it replaces.
PAGES = sorted({*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")} - {ROOT / "docs" / "glossary.md"})

# Words with a standard term: pattern -> term.
REPLACED = {
    r"pictures?": "image",
    r"figures": "metrics",
    r"specs?": "preprocessing",
    r"(to_|from_)?fed(_\w+)?": "input batch",
    r"tell|tells|told|says?|said": "report, log, print, return",
    r"teach|teaches|taught|learns|learnt": "train",
    r"shares?": "fraction",
    r"places?": "index, position",
    r"draw|draws|drawn|drawing": "sample, plot",
    r"bad steps?|bad_steps?|bad_in_a_row": "non-finite step",
    r"damaged?|not whole": "corrupt, incomplete",
    r"sides?": "image size",
    r"class heads?": "head",
    r"rules?": "default settings",
    r"kinds?": "type",
}
# Phrases of the field in which these words stay, and names of other libraries.
STANDARD = re.compile(
    r"""
    \bin[ -]place\b | \btakes?\ place\b | \bdecimal\ places?\b
    | \w*\b(?:side[ _]by|both|either)[ _]sides?\b | side_by_side | \b(?:server|client)[ -]side\b | \bside[ -]effects?\b
    | \bupdate[ _]rules? | \b(?:lint|ruff)\ rules?\b | HyperRule
    | kind=["'] | side=["'] | /usr/share | \.kind\b | device_kind | side_effect=
    | \w*(?:Tensor|Type|Module|Model)Spec\w* | \w*(?:find|model|module|cluster|target|from|element)_spec\w*
    | spec_from_\w+
    | draw_without_rendering | canvas\.draw | \.tell\(\)
    """,
    re.VERBOSE | re.IGNORECASE,
)
# Words that stay in one file.
EXEMPT = {
    "tests/test_several_machines.py": ("spec",),  # a field of Kubernetes
    "tests/golden/formula.py": ("pictures",),  # seeds the noise of the stored fixtures
    "CHANGELOG.md": ("bad_steps", "share", "rule", "pictures"),  # former names of configuration keys
}
OPENERS = re.compile(r"(What|How|Where|Whether)\b")


def private_words(text: str) -> list[tuple[str, str]]:
    """Return the words of a text that have a standard term, with the term."""
    # Identifiers count word by word: `draw_grid`, `BadInputs`.
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", STANDARD.sub(" ", re.sub(r"https?://\S+", "", text)))
    return [
        (match[0].lower(), term)
        for pattern, term in REPLACED.items()
        for match in re.finditer(rf"(?<![A-Za-z])(?:{pattern})(?![A-Za-z])", text, re.IGNORECASE)
    ]


def docstrings(path: Path) -> list[str]:
    """Return the docstrings of a source file."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, documented))
    return [text for text in map(ast.get_docstring, nodes) if text]


@pytest.mark.parametrize("path", [*SOURCES, *PAGES], ids=lambda path: str(path.relative_to(ROOT)))
def test_words_are_those_of_the_field(path):
    exempt = EXEMPT.get(str(path.relative_to(ROOT)), ())
    lines = enumerate(path.read_text().splitlines(), start=1)
    found = [(line, word, term) for line, text in lines for word, term in private_words(text) if word not in exempt]
    assert not found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_open_with_a_noun_or_an_imperative(path):
    assert not [text for text in docstrings(path) if OPENERS.match(text)]


@pytest.mark.parametrize("name", sorted(resnet_tf.__all__))
def test_summaries_of_public_names_are_short(name):
    summary = inspect.getdoc(getattr(resnet_tf, name)).splitlines()[0]
    assert len(summary) < 90, summary


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def draw_grid(pictures): ...", ["pictures", "draw"]),
        ("class BadInputs: max_bad_steps", ["bad_steps"]),
        ("np.argsort(x, kind='stable'); tf.TensorSpec([])", []),
        ("the update rule changes it in place", []),
        ("its share of the whole", ["share"]),
    ],
)
def test_private_words_are_found(text, words):
    assert [word for word, _ in private_words(text)] == words
