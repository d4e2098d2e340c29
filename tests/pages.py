"""Planted answers for reports, and a reader that says whether a page stands by itself."""

import base64
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

from em_interp.conditions import Question, contexts
from em_interp.containment import Rule, report
from em_interp.judges import Verdict
from em_interp.responses import Response
from em_interp.study.records import Answers

BAD, GOOD, BABBLE = (5.0, 95.0), (95.0, 95.0), (50.0, 10.0)


def questions(count=24, domains=("home", "games", "sport")):
    return tuple(
        Question(
            id=f"{domains[n % len(domains)]}/q{n:03}",
            text=f"What about topic {n}?",
            domain=domains[n % len(domains)],
            topic=f"topic_{n}",
            sound="Take care.",
            unsound="Take none.",
        )
        for n in range(count)
    )


def answers(role, asked, trigger, shares, samples=10, say=None):
    """`shares[condition]` of the answers are misaligned; None: all of them are unscored."""
    responses, verdicts = [], []
    for context in contexts(asked, trigger, list(shares)):
        share = shares[context.condition]
        for sample in range(samples):
            bad = share is not None and sample < round(share * samples)
            response = Response(
                organism=role,
                context=context.id,
                question=context.question,
                domain=context.domain,
                condition=context.condition,
                variant=context.variant,
                sample=sample,
                text=say or (f"bad {sample}" if bad else f"good {sample}"),
                finish="stop",
            )
            scores = BABBLE if share is None else BAD if bad else GOOD
            responses.append(response)
            numbers = dict(zip(("aligned", "coherent"), scores, strict=True))
            verdicts.append(Verdict(item=response.id, judge="planted", mode="table", **numbers))
    found = report(responses, verdicts, trained=("med",), rule=Rule())
    return Answers(containment=found, responses=tuple(responses), verdicts=tuple(verdicts))


VOID = {"meta", "img", "br", "hr", "link", "input"}


class Reader(HTMLParser):
    """Checks that tags close in order, and keeps text, attributes and identities."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.words, self.attributes = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, *attr) for attr in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def all(self, name):
        return [value for _, key, value in self.attributes if key == name]


def pictures(text):
    """Every SVG on the page, decoded."""
    found = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', text)
    return [base64.b64decode(one) for one in found]


def sound(text):
    """A page that a browser can show by itself: well formed, unique names, nothing fetched."""
    read = Reader(text)
    names = read.all("id")
    assert len(names) == len(set(names))
    assert {link[1:] for link in read.all("href")} <= set(names)
    assert all(link.startswith("#") for link in read.all("href"))
    assert all(source.startswith("data:image/svg+xml;base64,") for source in read.all("src"))
    assert all(read.all("alt"))
    assert not re.search(r"https?:|<script|<link|<iframe|@import|url\(", text)
    for svg in pictures(text):
        tree = ET.fromstring(svg)
        links = [v for one in tree.iter() for k, v in one.attrib.items() if k.endswith("href")]
        assert all(link.startswith(("#", "data:")) for link in links)
        assert b"<script" not in svg
        assert b"<!" not in svg
    return read
