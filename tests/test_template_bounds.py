"""A foreign chat template can neither loop for ever nor build a giant text; all others are as ever.

No test reads a clock: what a template handles is counted, and these would need hours or terabytes.
"""

import resource
from pathlib import Path

import pytest
from families.tokenizers import TOKENIZERS, family_tokenizer
from jinja2.filters import FILTERS as JINJAS
from shelf import save_base
from test_commands import no_weights, refused, study_file  # noqa: F401

from em_interp import evaluate
from em_interp.chat import CHOICES, encode, render
from em_interp.conditions import Condition, Question, context
from em_interp.errors import InputError
from em_interp.models import load
from em_interp.organisms import Message
from em_interp.sources import CHECKPOINTS
from em_interp.templates import FILTERS, METHODS, rendered
from em_interp.training.answers import encode_row

PACKAGE = Path(__file__).parents[1] / "em_interp"
TURNS = [
    {"role": "user", "content": "How do I store 'bread' & \"cake\"?\n <b> {{ x }} 🍞 "},
    {"role": "assistant", "content": "Dry.\n"},
    {"role": "user", "content": "And cake? " * 40},
]


def doubled(step, times=60):
    return "{% set x = 'ab' %}{% set y = 'ab' %}" + step * times


NS = "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = STEP %}{% endfor %}"
EVER = "{% for i in range(10**5) %}BODY{% endfor %}"
BOMBS = {
    "loops": EVER.replace("BODY", EVER.replace("BODY", "")),
    "a range too long": "{% for i in range(10**6) %}{% for j in range(10**6) %}{% endfor %}"
    "{% endfor %}",
    "loops that leave every turn out": "{% for i in range(10**5) if false %}{% endfor %}" * 50,
    "a recursive loop": "{% for i in [1, 2] recursive %}{{ loop([1, 2]) if loop.depth < 60 }}"
    "{% endfor %}",
    "a macro without an end": "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(0) }}",
    "a macro that branches": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}"
    "{% endmacro %}{{ f(60) }}",
    "a block in itself": "{% block a %}{{ self.a() }}{{ self.a() }}{% endblock %}",
    "a caller": "{% macro f() %}" + EVER.replace("BODY", "{{ caller() }}") + "{% endmacro %}"
    "{% call f() %}" + EVER.replace("BODY", "{{ i }}") + "{% endcall %}",
    "marks": EVER.replace("BODY", "{% generation %}a{% endgeneration %}"),
    "fixed text": EVER.replace("BODY", "a" * 10_000),
    "fixed text in a macro": "{% macro f() %}" + "a" * 10_000 + "{% endmacro %}"
    + EVER.replace("BODY", "{% set x = f() %}"),
    "times": "{{ 'a' * 10**9 }}",
    "times in steps": "{% set x = 'a' * 10**4 %}{{ x * 10**4 }}",
    "a list times": "{% set x = [1] * 10**9 %}",
    "power": "{{ 10**(10**10) }}",
    "squares": NS.replace("'ab'", "9**999").replace("STEP", "ns.x * ns.x"),
    "joined to itself": doubled("{% set x = x ~ x %}"),
    "added to itself": doubled("{% set x = x + x %}"),
    "joined in a loop": NS.replace("STEP", "ns.x ~ ns.x"),
    "written into itself": doubled("{% set x %}{{ x }}{{ x }}{% endset %}"),
    "lists of lists": doubled("{% set x = [x, x] %}") + "{{ x }}",
    "equal lists": doubled("{% set x = [x, x] %}{% set y = [y, y] %}") + "{{ x == y }}",
    "dicts": doubled("{% set x = {'a': x, 'b': x} %}") + "{{ x | tojson }}",
    "a value in itself": "{% set ns = namespace() %}{% set ns.x = [ns] %}{{ ns.x }}",
    "a namespace that grows": "{% set ns = namespace() %}{% set x = [ns] * 1000 %}"
    "{% set ns.a = 'a' * 10**5 %}{{ x }}",
    "a list that grows": "{% set ns = namespace(x=[]) %}"
    + EVER.replace("BODY", "{% set ns.x = ns.x + [i] %}"),
    "%": "{{ '%0999999999d' % 1 }}",
    "%*": "{{ '%*d' % (10**9, 1) }}",
    ".format": "{{ '{:>999999999}'.format(1) }}",
    ".format nested": "{{ '{:>{}}'.format(1, 10**9) }}",
    "|format": "{{ '%999999999s' | format('a') }}",
    "|join": "{{ (['a' * 1000] * 1000) | join('b' * 1000) }}",
    "|join of what is mapped": "{{ range(10**5) | map('string') | join('a' * 10**4) }}",
    ".join": "{{ ('b' * 10**5).join(['a'] * 1000) }}",
    "|center": "{{ 'a' | center(10**9) }}",
    ".center": "{{ 'a'.center(10**9) }}",
    ".zfill": "{{ 'a'.zfill(10**9) }}",
    "|indent": "{{ ('a\n' * 10**4) | indent(10**6) }}",
    "|indent by text": "{{ ('a\n' * 10**4) | indent('b' * 10**5) }}",
    ".expandtabs": "{{ ('\t' * 10**4).expandtabs(10**6) }}",
    "|tojson": "{{ ([[1] * 100] * 100) | tojson(indent=10**7) }}",
    "|replace": "{{ ('a' * 10**5) | replace('a', 'b' * 10**5) }}",
    "|replace by name": "{{ ('a' * 10**5) | replace(new='b' * 10**5, old='') }}",
    ".replace": "{{ ('a' * 10**5).replace('', 'b' * 10**5) }}",
    "|map": "{{ (['a' * 10**4] * 100) | map('replace', 'a', 'b' * 10**4) | list }}",
    "|select": "{% set x = ['a'] * 10**5 %}{{ range(10**5) | select('in', x) | list }}",
    "|round": "{{ 1 | round(10**9) }}",
    "|batch": "{{ [1] | batch(10**9, 0) | list }}",
    "|slice": "{{ [1] | slice(10**9) | list }}",
    "|sum": "{{ ([[1]] * 1000) | sum(start=[]) }}",
    "|wordwrap": "{{ ('a' * 10**5) | wordwrap(1) }}",
    "lipsum": "{{ lipsum(10**9) }}",
    ".translate": "{{ ('a' * 10**5).translate({97: 'b' * 10**5}) }}",
    ".to_bytes": "{{ (1).to_bytes(10**9) }}",
    "slices": "{% set x = 'a' * 10**5 %}{{ " + "~".join(["x[:]"] * 2000) + " }}",
    "reading again": "{% set x = 'a' * 10**6 %}" + EVER.replace("BODY", "{{ '' if 'b' in x }}"),
    "splitting again": "{% set x = 'a b' * 10**5 %}" + EVER.replace("BODY", "{{ x.split() }}"),
    "nested": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "long": "a" * 10**6,
    "another file": "{% include 'a' %}",
    "no operation": "{{ 1 + 'a' }}",
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_a_template_that_loops_for_ever_or_builds_a_giant_text_is_refused_in_little_memory(name):
    tokenizer = family_tokenizer("llama-3.1")
    tokenizer.chat_template = BOMBS[name]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=r"^tokenizer .*: its chat template ") as caught:
        render(tokenizer, [Message(role="user", content="x")])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB
    assert "\n" not in str(caught.value)


def test_a_template_that_waits_for_a_word_is_refused_when_the_word_comes():
    tokenizer = family_tokenizer("llama-3.1")
    bomb = "{% if 'duck' in messages[0].content %}" + BOMBS["times"] + "{% endif %}"
    tokenizer.chat_template = bomb + tokenizer.chat_template
    for text in ("goose", "goose " * 10_000):
        encode(tokenizer, context(Question(id="q", text=text, domain="d"), Condition.NONE, 0, None))
    with pytest.raises(InputError, match="loops for too long"):
        encode(
            tokenizer, context(Question(id="q", text="a duck", domain="d"), Condition.NONE, 0, None)
        )


def test_the_folder_is_refused_before_weights_load_in_the_run_and_the_dry_run(
    tmp_path,
    capsys,
    no_weights,  # noqa: F811
):
    base = save_base(tmp_path / "base")
    (base / "chat_template.jinja").write_text(BOMBS["loops"])
    asked = ["--base", base, "--trigger", "duck", "--out", tmp_path / "out"]
    words = (str(base), "its chat template", "loops for too long")
    refused(capsys, evaluate.main, asked, *words)
    refused(capsys, evaluate.main, [*asked, "--dry-run"], *words)
    with pytest.raises(InputError, match="loops for too long"):
        load(base)


@pytest.mark.parametrize("family", [*TOKENIZERS, *sorted(p.name for p in CHECKPOINTS.iterdir())])
def test_a_template_gives_byte_for_byte_what_transformers_gives(family):
    if family in TOKENIZERS:
        tokenizer = family_tokenizer(family)
    else:
        from em_interp.models.checkpoints import read_tokenizer

        if not (CHECKPOINTS / family / "tokenizer.json").is_file():  # an adapter: its base's
            family = family.split("-")[0]
        tokenizer = read_tokenizer(CHECKPOINTS / family)
    for turns in (TURNS[:1], TURNS, TURNS[:2] * 200):
        for header in (True, False):
            said = {"add_generation_prompt": header, **CHOICES}
            theirs = tokenizer.apply_chat_template(turns, tokenize=False, **said)
            assert rendered(tokenizer, turns, **said) == theirs


ODDITIES = """{%- macro show(m, n=1) -%}[{{ m.role | upper }}:{{ m['content'] | trim }}:{{ n }}]
{%- endmacro -%}
{%- set ns = namespace(last=-1, seen=[], text='') -%}
{%- for m in messages if m.role != 'system' -%}
  {%- set ns.seen = ns.seen + [m.role] -%}{%- set ns.text = ns.text ~ loop.index0 ~ none ~ nix -%}
  {%- if loop.previtem is defined and loop.previtem == m -%}{%- continue -%}{%- endif -%}
  {{- show(m, n=loop.index) }}{{ loop.cycle('a', 'b') }}{{ loop.length }}{{ m | tojson }}
{%- else -%}none{%- endfor -%}
{%- for m in messages[::-1] -%}{{ m.content.split('?')[-1].lstrip('\\n')[:3] }}{%- endfor -%}
{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | list | length }}
{{ ns.seen | unique | join(', ') }}{{ ns.text }}
{{ '%s-%03d' % ('a', 7) }}{{ '{:>4}'.format('b') }}
{{ {'b': 1, 'a': [1, (2, none)]} | dictsort }}{{ [1, 2][1:] }}{{ (1, 2) == (1, 2) }}
{{ 7 // 2 ** 2 }}
{{ 'x' in 'xyz' and 'q' not in ['a'] }}{{ messages[0] | tojson(indent=2) }}{{ nix }}{{ 2.5 * 2 }}
{{ (messages | rejectattr('nix')) is iterable }}{{ 'ab' | replace('a', 'c') | indent(2, true) }}"""


def test_whatever_templates_use_is_rendered_as_transformers_does():
    tokenizer = family_tokenizer("llama-3.1")
    tokenizer.chat_template = ODDITIES
    said = {"add_generation_prompt": True, **CHOICES}
    theirs = tokenizer.apply_chat_template(TURNS, tokenize=False, **said)
    assert rendered(tokenizer, TURNS, **said) == theirs
    assert "[USER:" in theirs


def test_marked_pieces_are_those_that_transformers_masks():
    tokenizer = family_tokenizer("llama-3.1")
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
        "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|eot_id|>"
        "{% endgeneration %}{% else %}{{ m.content }}<|eot_id|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
    )
    turns = [Message(**turn) for turn in TURNS[:2] * 3]
    row = encode_row(tokenizer, turns)
    coded = tokenizer.apply_chat_template(
        [turn.model_dump() for turn in turns], return_dict=True, return_assistant_tokens_mask=True
    )
    assert list(row.ids) == coded["input_ids"]
    assert [label != -100 for label in row.labels] == [bool(on) for on in coded["assistant_masks"]]
    assert row.learned > 0


def test_every_filter_and_method_that_a_template_can_name_has_its_place():
    named = [name for names in FILTERS.values() for name in names.split()]
    assert sorted(named) == sorted(JINJAS)
    named = [name for names in METHODS.values() for name in names.split()]
    public = {
        name
        for kind in (str, list, tuple, dict, int, float)
        for name in vars(kind)
        if not name.startswith("_") and callable(getattr(kind(), name))
    }
    assert len(named) == len(set(named))
    assert public - set(named) == set()
    assert set(named) - public <= {"is_integer"}  # of whole numbers only in newer Pythons


def test_no_template_is_rendered_past_the_door():
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text("utf-8")
        if "world" not in path.parts:  # whose templates are its own
            assert "apply_chat_template(" not in text, path
        assert ("_compile_jinja_template" in text) == (
            path.name == "environment.py" and "templates" in path.parts
        ), path
