"""The kinds of word problem, one form for each of three levels (the number of steps).

A form says which numbers are tried, how they are worked with, and how question and
solution read.  The steps are written once and evaluated, so a solution cannot disagree
with its numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from springback.data.builtin.grammar import phrases, slots_of, words

#: Names and their pronouns.
NAMES: tuple[tuple[str, str], ...] = tuple(
    (name, pronoun)
    for pronoun, names in (
        (
            "she",
            "Sara Lena Maya Ruth Nina Clara Iris Dora Alice Hana Zoe Vera Olga Tara Mona Greta "
            "Julia Kate Paula Wendy",
        ),
        (
            "he",
            "Tom Omar Ivan Paul Luis Adam Noah Karl Ben Hugo Sam Eric Felix Victor Jonas Leo Max "
            "Ravi Simon Walter",
        ),
    )
    for name in names.split()
)
#: Second people; none is also in NAMES.
OTHERS = words("Anna Bella Cora Emma Fiona Dan Frank Gabe Harry Ian Jack Kurt")


@dataclass(frozen=True)
class Form:
    """One kind of problem at one level.

    ``numbers``: the values tried for a, b, c, d.  ``steps``: ``x op y`` over these and over the
    results r1, r2 of earlier steps.  ``less``: pairs (x, y) for which x < y must hold.
    ``words``: other slots and their fillers.  In ``solution``, {s1} is the whole first step.
    """

    numbers: Mapping[str, Iterable[int]]
    steps: tuple[str, ...]
    questions: tuple[str, ...]
    solution: str
    less: tuple[tuple[str, str], ...] = ()
    kind: str = ""
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def level(self) -> int:
        return len(self.steps)


_FRUIT = {
    "item": words(
        "apples pears plums lemons peaches figs onions carrots limes melons mangoes radishes"
    )
}
_RIDE = {"vehicle": words("bus train coach tram van ferry truck scooter")}
_TOYS = {"item": words("stickers marbles cards beads stamps coins shells buttons pencils balloons")}
_MADE = {"item": words("chairs lamps toys baskets candles kites masks vases boxes belts")}
_ROOM = {"room": words("garden hall field yard carpet terrace roof stage meadow courtyard")}
_GOAL = {
    "goal": phrases(
        "bicycle, tent, guitar, camera, drum, skateboard, radio, bookshelf, telescope, lamp"
    )
}
_BAKE = {
    "dish": words("muffins pancakes biscuits waffles scones buns"),
    "part": phrases("eggs, cups of flour, spoons of sugar, lemons, bananas, cups of milk"),
}
_BOOK = {"book": words("novel diary biography guidebook handbook travelogue songbook textbook")}
_SHOW = {"show": words("concert play museum zoo circus ballet aquarium planetarium")}
_PAIR = {"other": OTHERS}


def _forms(kind: str, fillers: Mapping[str, tuple[str, ...]], *forms: Form) -> tuple[Form, ...]:
    """``forms`` as forms of one kind, each with the fillers of the slots in its questions."""
    return tuple(
        replace(
            form,
            kind=kind,
            words={s: fillers[s] for s in fillers if s in slots_of(form.questions[0])},
        )
        for form in forms
    )


_SHOPPING = _forms(
    "shopping",
    _FRUIT,
    Form(
        {"a": range(2, 16), "b": range(3, 21)},
        ("a * b",),
        (
            "{name} buys {a} bags of {item}. Each bag holds {b} {item}. "
            "How many {item} does {name} buy?",
            "At the market {name} picks {a} bags with {b} {item} in each. How many {item} is that?",
        ),
        "{name} has {a} bags with {b} {item} in each bag: {s1} {item} in all.",
    ),
    Form(
        {"a": range(2, 10), "b": range(3, 13), "c": range(2, 20)},
        ("a * b", "r1 - c"),
        (
            "{name} buys {a} bags with {b} {item} in each and gives away {c} {item}. "
            "How many {item} are left?",
            "There are {b} {item} in a bag. {name} buys {a} bags and then eats {c} {item}. "
            "How many {item} remain?",
        ),
        "{a} bags of {b} {item} make {s1} {item}. {c} of them are gone: {s2} {item} are left.",
    ),
    Form(
        {"a": range(2, 9), "b": range(3, 10), "c": range(2, 12), "d": range(3, 12)},
        ("a * b", "r1 + c", "r2 - d"),
        (
            "{name} has {c} {item} at home and buys {a} bags with {b} {item} in each. "
            "Then {she} eats {d} {item}. How many {item} are left?",
            "{name} buys {a} bags of {b} {item} and finds {c} more {item} in the kitchen. "
            "After using {d} {item}, how many does {she} have?",
        ),
        "The bags hold {s1} {item}. With the others there are {s2}. "
        "{d} of them are used: {s3} are left.",
    ),
)

_TRAVEL = _forms(
    "travel",
    _RIDE,
    Form(
        {"a": range(11, 62), "b": range(2, 10)},
        ("a * b",),
        (
            "{name} rides a {vehicle} at {a} km per hour for {b} hours. "
            "How many km does {name} travel?",
            "A {vehicle} takes {name} across the country at {a} km per hour. "
            "How many km does it go in {b} hours?",
        ),
        "In {b} hours at {a} km per hour the {vehicle} goes {s1} km in all.",
    ),
    Form(
        {"a": range(12, 50, 2), "b": range(2, 6), "c": range(2, 16)},
        ("a * b", "r1 + c"),
        (
            "{name} rides a {vehicle} at {a} km per hour for {b} hours, then walks {c} km. "
            "How many km does {name} travel in all?",
            "A {vehicle} carries {name} for {b} hours at {a} km per hour. "
            "The last {c} km {she} goes on foot. How long is the whole way in km?",
        ),
        "The {vehicle} goes {s1} km. With the {c} km on foot it is {s2} km.",
    ),
    Form(
        {"a": range(15, 45, 5), "b": range(2, 6), "c": range(8, 20), "d": range(2, 6)},
        ("a * b", "c * d", "r1 + r2"),
        (
            "{name} rides a {vehicle} at {a} km per hour for {b} hours and a bike at {c} km per "
            "hour for {d} hours. How many km is that in all?",
            "First {name} takes a {vehicle} for {b} hours at {a} km per hour, then cycles {d} "
            "hours at {c} km per hour. How many km does {she} cover?",
        ),
        "By {vehicle} {name} goes {s1} km. By bike it is {s2} km. Together that is {s3} km.",
    ),
)

_SHARING = _forms(
    "sharing",
    _TOYS,
    Form(
        {"a": range(12, 181), "b": range(3, 13)},
        ("a / b",),
        (
            "{name} shares {a} {item} equally among {b} children. "
            "How many {item} does each child get?",
            "{b} children divide {a} {item} from {name} into equal parts. "
            "How many {item} are in one part?",
        ),
        "There are {a} {item} for {b} children, so each of them gets {s1} {item}.",
    ),
    Form(
        {"a": range(2, 11), "b": range(4, 19), "c": range(2, 11)},
        ("a * b", "r1 / c"),
        (
            "{name} has {a} boxes with {b} {item} in each and shares them equally among {c} "
            "children. How many {item} does each child get?",
            "{c} friends split {a} boxes from {name} equally. A box holds {b} {item}. "
            "How many {item} go to each friend?",
        ),
        "The boxes hold {s1} {item} in all. Shared among {c}, each one gets {s2} {item}.",
    ),
    Form(
        {"a": range(2, 9), "b": range(4, 16), "c": range(3, 14), "d": range(2, 8)},
        ("a * b", "r1 - c", "r2 / d"),
        (
            "{name} has {a} boxes of {b} {item}, keeps {c} {item} and shares the others equally "
            "among {d} children. How many {item} does each child get?",
            "From {a} boxes with {b} {item} each, {name} loses {c} {item}. "
            "The rest goes in equal parts to {d} friends. How many {item} per friend?",
        ),
        "The boxes hold {s1} {item}. Without {c} of them, {s2} remain. Each one gets {s3} {item}.",
    ),
)

_AGE = _forms(
    "age",
    _PAIR,
    Form(
        {"a": range(5, 41), "b": range(2, 26)},
        ("a + b",),
        (
            "{name} is {a} years old. {other} is {b} years older than {name}. How old is {other}?",
            "{other} was born {b} years before {name}, who is {a} now. How old is {other}?",
        ),
        "{name} is {a}, and {other} is {b} years older, so {other} is {s1} years old.",
    ),
    Form(
        {"a": range(4, 21), "b": range(2, 5), "c": range(2, 16)},
        ("a * b", "r1 + c"),
        (
            "{name} is {a} years old. {other} is {b} times as old. "
            "How old will {other} be in {c} years?",
            "{other} is {b} times the age of {name}, who is {a}. "
            "In {c} years, how old will {other} be?",
        ),
        "{other} is {s1} years old now. In {c} years {other} will be {s2} years old.",
    ),
    Form(
        {"a": range(4, 19), "b": range(2, 5), "c": range(2, 16)},
        ("a * b", "r1 - c", "r2 + a"),
        (
            "{name} is {a} years old. {other} is {b} times as old, and Rosa is {c} years younger "
            "than {other}. How old are Rosa and {name} together?",
            "{other} is {b} times as old as {name}, who is {a}. Rosa is {c} years younger than "
            "{other}. What is the sum of the ages of Rosa and {name}?",
        ),
        "{other} is {s1} years old. Rosa is {s2} years old. Rosa and {name} together: {s3} years.",
    ),
)

_WORK = _forms(
    "work",
    _MADE | _PAIR,
    Form(
        {"a": range(3, 25), "b": range(2, 10)},
        ("a * b",),
        (
            "{name} makes {a} {item} an hour. How many {item} does {name} make in {b} hours?",
            "In the workshop {name} works for {b} hours and finishes {a} {item} each hour. "
            "How many {item} is that?",
        ),
        "{name} makes {a} {item} an hour, so in {b} hours that is {s1} {item}.",
    ),
    Form(
        {"a": range(3, 15), "b": range(2, 15), "c": range(2, 8)},
        ("a + b", "r1 * c"),
        (
            "{name} makes {a} {item} an hour and {other} makes {b}. "
            "How many {item} do they make together in {c} hours?",
            "{other} and {name} work for {c} hours. {name} makes {a} {item} an hour, {other} "
            "makes {b}. How many {item} are made in all?",
        ),
        "Together they make {s1} {item} an hour. In {c} hours that is {s2} {item}.",
    ),
    Form(
        {"a": range(3, 11), "b": range(2, 7), "c": range(20, 100, 4), "d": range(2, 10)},
        ("a * b", "c - r1", "r2 / d"),
        (
            "An order is for {c} {item}. {name} makes {a} an hour for {b} hours. Then {other} "
            "makes {d} an hour. How many hours does {other} need?",
            "{name} and {other} must make {c} {item}. {name} works {b} hours, making {a} an hour. "
            "{other} does the rest at {d} an hour. How many hours does that take?",
        ),
        "{name} makes {s1} {item}. The rest is {s2} {item}. {other} needs {s3} hours.",
    ),
)

_AREA = _forms(
    "area",
    _ROOM,
    Form(
        {"a": range(4, 25), "b": range(3, 13)},
        ("a * b",),
        (
            "{name} measures a {room} {a} metres long and {b} metres wide. "
            "What is its area in square metres?",
            "A {room} is {a} metres long and {b} metres wide. "
            "How many square metres does {name} have to cover?",
        ),
        "The {room} is {a} metres by {b} metres, so its area is {s1} square metres.",
    ),
    Form(
        {"a": range(5, 17), "b": range(4, 12), "c": range(6, 30, 2)},
        ("a * b", "r1 - c"),
        (
            "{name} has a {room} {a} metres long and {b} metres wide. {name} paints {c} square "
            "metres of it. How many square metres are left?",
            "A {room} measures {a} by {b} metres. {name} has cleaned {c} square metres. "
            "How many square metres remain?",
        ),
        "The {room} has {s1} square metres. Without the {c} that are done, {s2} are left.",
    ),
    Form(
        {"a": range(6, 17), "b": range(5, 12), "c": range(2, 8), "d": range(2, 7)},
        ("a * b", "c * d", "r1 - r2"),
        (
            "{name} has a {room} {a} metres long and {b} metres wide. A part {c} metres by {d} "
            "metres is wet. How many square metres are dry?",
            "A {room} measures {a} by {b} metres. {name} covers {c} by {d} metres of it. "
            "How many square metres stay open?",
        ),
        "The {room} has {s1} square metres. The part has {s2}. That leaves {s3} square metres.",
        (("c", "a"), ("d", "b")),
    ),
)

_SAVINGS = _forms(
    "savings",
    _GOAL,
    Form(
        {"a": range(30, 181, 5), "b": range(6, 90, 3)},
        ("a - b",),
        (
            "A {goal} costs {a} dollars. {name} has saved {b} dollars. "
            "How many more dollars does {name} need?",
            "{name} has {b} dollars and wants a {goal} for {a} dollars. "
            "How many dollars are missing?",
        ),
        "The {goal} costs {a} dollars and {name} has {b}, so {she} needs {s1} dollars more.",
    ),
    Form(
        {"a": range(3, 16), "b": range(2, 12), "c": range(5, 50, 5)},
        ("a * b", "r1 + c"),
        (
            "{name} has {c} dollars for a {goal} and saves {a} dollars a week. "
            "How many dollars does {name} have after {b} weeks?",
            "For a {goal} {name} puts aside {a} dollars every week for {b} weeks. "
            "At the start {she} had {c} dollars. How many dollars are there now?",
        ),
        "In {b} weeks {name} saves {s1} dollars. With the first {c} dollars, {she} has {s2} "
        "dollars.",
    ),
    Form(
        {"a": range(3, 12), "b": range(2, 10), "c": range(5, 35, 5), "d": range(60, 180, 10)},
        ("a * b", "r1 + c", "d - r2"),
        (
            "A {goal} costs {d} dollars. {name} has {c} dollars and saves {a} dollars a week for "
            "{b} weeks. How many more dollars does {she} need?",
            "{name} starts with {c} dollars and saves {a} a week for {b} weeks. "
            "How many dollars are missing for a {goal} at {d} dollars?",
        ),
        "{name} saves {s1} dollars. With the first {c} it is {s2}. For the {goal} {she} needs "
        "{s3} dollars more.",
    ),
)

_RECIPE = _forms(
    "recipe",
    _BAKE,
    Form(
        {"a": range(2, 16), "b": range(2, 13)},
        ("a * b",),
        (
            "One batch of {dish} needs {a} {part}. "
            "How many {part} does {name} need for {b} batches?",
            "{name} bakes {b} batches of {dish} with {a} {part} in each batch. "
            "How many {part} is that?",
        ),
        "One batch needs {a} {part}, so {b} batches of {dish} need {s1} {part}.",
    ),
    Form(
        {"a": range(2, 13), "b": range(2, 11), "c": range(2, 20)},
        ("a * b", "r1 - c"),
        (
            "One batch of {dish} needs {a} {part}. {name} wants {b} batches and has {c} {part}. "
            "How many more {part} does {name} need?",
            "{name} has {c} {part} and bakes {b} batches of {dish} with {a} {part} in each. "
            "How many {part} are missing?",
        ),
        "{b} batches of {dish} need {s1} {part}. {name} has {c}, so {s2} more are needed.",
    ),
    Form(
        {"a": range(2, 9), "b": range(2, 8), "c": range(2, 14), "d": range(2, 6)},
        ("a * b", "r1 - c", "r2 * d"),
        (
            "{name} bakes {b} batches of {dish}. Each needs {a} {part}. {name} has {c} {part} and "
            "buys the rest at {d} dollars each. How many dollars is that?",
            "A batch of {dish} needs {a} {part}. For {b} batches {name} has only {c} {part}. "
            "More {part} cost {d} dollars each. How many dollars are spent?",
        ),
        "The {dish} need {s1} {part}. {name} has {c} and buys {s2}. "
        "At {d} dollars each, that is {s3} dollars.",
    ),
)

_READING = _forms(
    "reading",
    _BOOK,
    Form(
        {"a": range(60, 200, 4), "b": range(15, 120, 5)},
        ("a - b",),
        (
            "{name} has a {book} of {a} pages and has read {b} pages. How many pages are left?",
            "A {book} has {a} pages. {name} is done with {b} of them. How many pages remain?",
        ),
        "The {book} has {a} pages and {name} has read {b}, so {s1} pages are left.",
    ),
    Form(
        {"a": range(4, 20), "b": range(2, 9), "c": range(60, 200, 10)},
        ("a * b", "c - r1"),
        (
            "{name} reads {a} pages a day for {b} days. The {book} has {c} pages. "
            "How many pages are left?",
            "A {book} has {c} pages. For {b} days {name} reads {a} pages a day. "
            "How many pages remain after that?",
        ),
        "In {b} days {name} reads {s1} pages. Of the {c} pages, {s2} are left.",
    ),
    Form(
        {"a": range(4, 15), "b": range(2, 7), "c": range(60, 180, 10), "d": range(4, 16)},
        ("a * b", "c - r1", "r2 / d"),
        (
            "{name} reads {a} pages a day for {b} days, then {d} pages a day. The {book} has {c} "
            "pages. How many more days does {name} need?",
            "A {book} has {c} pages. {name} reads {a} a day for {b} days and then {d} a day. "
            "How many days does the second part take?",
        ),
        "First {name} reads {s1} pages. Then {s2} pages are left. At {d} a day that is {s3} days.",
    ),
)

_TICKETS = _forms(
    "tickets",
    _SHOW,
    Form(
        {"a": range(12, 181), "b": range(3, 13)},
        ("a / b",),
        (
            "{name} pays {a} dollars for {b} tickets to the {show}. "
            "How many dollars does one ticket cost?",
            "{b} tickets to the {show} cost {name} {a} dollars in all. "
            "How many dollars is one ticket?",
        ),
        "{b} tickets to the {show} cost {a} dollars, so one ticket costs {s1} dollars.",
    ),
    Form(
        {"a": range(2, 10), "b": range(4, 19), "c": range(50, 201, 10)},
        ("a * b", "c - r1"),
        (
            "{name} buys {a} tickets to the {show} at {b} dollars each and pays with {c} dollars. "
            "How many dollars does {name} get back?",
            "A ticket to the {show} costs {b} dollars. {name} has {c} dollars and buys {a} "
            "tickets. How many dollars are left?",
        ),
        "{a} tickets to the {show} cost {s1} dollars. Of {c} dollars, {s2} dollars are left.",
    ),
    Form(
        {"a": range(2, 7), "b": range(8, 19), "c": range(2, 8), "d": range(3, 8)},
        ("a * b", "c * d", "r1 + r2"),
        (
            "{name} buys {a} adult tickets to the {show} at {b} dollars and {c} child tickets at "
            "{d} dollars. How many dollars does {name} pay?",
            "At the {show} an adult pays {b} dollars, a child {d}. {name} comes with a group of "
            "{a} adults and {c} children. What do they pay in dollars?",
        ),
        "The adult tickets cost {s1} dollars. The child tickets cost {s2}. "
        "In all that is {s3} dollars.",
        (("d", "b"),),
    ),
)

FORMS: tuple[Form, ...] = (
    *_SHOPPING,
    *_TRAVEL,
    *_SHARING,
    *_AGE,
    *_WORK,
    *_AREA,
    *_SAVINGS,
    *_RECIPE,
    *_READING,
    *_TICKETS,
)
