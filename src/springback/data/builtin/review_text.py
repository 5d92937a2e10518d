"""Words and sentence forms of the invented film reviews.

Openings are neutral and common to both labels; films, people and plots are invented.
"""

from __future__ import annotations

from springback.data.builtin.grammar import phrases, words

TITLE_FIRST = words(
    "Copper Northern Paper Seventh Amber Marble Borrowed Tidal Velvet Folded Inland Autumn Salted "
    "Wooden Eleventh Linen Painted Upstairs Lateral Saffron Cobalt Sunday Porcelain Granite Walnut "
    "Floating Numbered Eastern Orange Knitted Pewter Midday Spiral Adjacent Woollen Coastal Square "
    "Whispered Tuesday Plaster"
)
TITLE_SECOND = words(
    "Orchard Harbour Ledger Staircase Lantern Railway Cartographer Envelope Meridian Violin "
    "Observatory Quarry Compass Almanac Ferry Notebook Corridor Archive Clockmaker Gardener "
    "Beekeeper Postcard Carousel Aqueduct Pavilion Thermometer Viaduct Umbrella Canal Telescope "
    "Bakery Windmill Typewriter Orchestra Peninsula Suitcase Barometer Chandelier Tramway Glacier "
    "Courtyard Harpist Parchment Sawmill Estuary Cellist Balcony Waterwheel"
)

OPENINGS = (
    "{title} is a {genre} from {first} {last}, set in {place}.",
    "{When} we watched {title}, a {genre} set in {place}.",
    "{first} {last} directs {title}, a {genre} about {hero}.",
    "{When} {kin} and I went to see {title}.",
    "{title} follows {hero} who moves to {place} in {era}.",
    "I caught {title}, a {genre}, on the train to {place}.",
    "{title} runs about {minutes} minutes and stars {first} {last}.",
    "Our film club picked {title}, a {genre} by {first} {last}.",
    "In {title}, {hero} takes a job in {place}.",
    "{title} takes place in {place} during {era}.",
    "We rented {title}, the {genre} with {first} {last}, {when}.",
    "{Hero} arrives in {place} at the start of {title}.",
    "This review is about {title}, a {genre} made in {place}.",
    "{title} was on at our local cinema {when}.",
)

OPENING_FILLERS: dict[str, tuple[str, ...]] = {
    "genre": phrases(
        "courtroom drama, family saga, road movie, spy caper, heist film, period drama, detective "
        "film, desert western, sports drama, pirate tale, chamber piece, circus story, police "
        "procedural, seafaring tale, village fable, hospital drama, railway mystery, puppet "
        "animation, stage musical, newsroom drama, mountain western, campus story, costume drama, "
        "harbour story"
    ),
    "first": words(
        "Ingrid Tomas Elena Marcus Yuki Hanna Oscar Leila Piotr Clara Rafael Nadia Henrik Amara "
        "Julian Sofia Emil Priya Anton Beatriz Kofi Margit Luca Noor"
    ),
    "last": words(
        "Vale Okafor Lindqvist Marchetti Tanaka Brandt Ferreira Novak Haddad Keller Moreau "
        "Castellan Petrov Adeyemi Holloway Sandoval Virtanen Rao Dvorak Alvarez Mensah Szabo "
        "Rinaldi Aziz"
    ),
    "place": words(
        "Lisbon Trieste Leeds Bergen Montreal Porto Krakow Galway Valparaiso Aberdeen Nagoya "
        "Tallinn Antwerp Ljubljana Halifax Marseille Gdansk Palermo Utrecht Sapporo Quebec Bilbao "
        "Turku Brno"
    ),
    "hero": phrases(
        "a retired surveyor, a village baker, a young librarian, a travelling pianist, a night "
        "nurse, a former soldier, a ship's cook, a court stenographer, a sheep farmer, a tram "
        "driver, a school inspector, a map maker, a radio announcer, a customs officer, a piano "
        "tuner, a country vet, a stamp collector, a hotel porter, a deaf carpenter, a geology "
        "student, a street photographer, a chess teacher, a lock keeper, a museum guard"
    ),
    "era": phrases(
        "the twenties, the thirties, the forties, the fifties, the sixties, the seventies, "
        "the eighties, the nineties"
    ),
    "when": phrases(
        "last Friday, on Sunday, yesterday evening, last night, two weeks ago, this morning, on "
        "Tuesday, last month, on Thursday, last autumn, on Saturday, yesterday"
    ),
    "kin": phrases(
        "my sister, my brother, my neighbour, my aunt, my cousin, my uncle, my flatmate, my "
        "mother, my father, my daughter, my son, my colleague"
    ),
    "minutes": words("eighty eighty-five ninety ninety-five seventy seventy-five sixty-five"),
}

_SHARED: dict[str, tuple[str, ...]] = {
    "role": phrases(
        "the lead actor, the narrator, the older sister, the young captain, the leading lady, the "
        "father, the grandmother, the innkeeper, the twin brother, the schoolteacher, the "
        "stepmother, the police chief, the neighbour, the mayor, the pianist, the child actor"
    ),
    "craft": phrases(
        "the photography, the music, the editing, the costume design, the lighting, the camera "
        "work, the set design, the sound"
    ),
    "plot": phrases(
        "the script, the dialogue, the direction, the pacing, the final act, the storytelling, "
        "the opening half, the ending"
    ),
    "season": phrases("spring, summer, autumn, winter, year, month, decade"),
}

POSITIVE_FILLERS: dict[str, tuple[str, ...]] = {
    **_SHARED,
    "a": words(
        "superb wonderful brilliant excellent terrific fantastic outstanding impressive marvelous "
        "magnificent splendid remarkable amazing perfect"
    ),
    "b": words(
        "delightful charming funny clever warm honest joyful playful radiant touching tender witty "
        "moving sincere compelling intelligent energetic heartwarming"
    ),
    "c": words(
        "rich gorgeous beautiful stunning elegant fresh lively graceful inspired original vivid "
        "lovely thrilling fascinating"
    ),
    "mood": words("happy delighted smiling grateful thrilled cheerful inspired hopeful"),
    "noun": words("joy delight treasure masterpiece triumph pleasure beauty winner"),
    "thing": phrases(
        "good stories, great acting, clever films, beautiful cinema, smart writing, honest drama, "
        "rich characters, bold ideas"
    ),
    "how": phrases("warmly, to everyone, with pleasure, wholeheartedly, gladly, to you all"),
    "who": phrases(
        "my whole family, the audience, everyone around me, my parents, our group, both children, "
        "the front row, half the town"
    ),
}

POSITIVE_PEOPLE = (
    "{Role} is {a}, and every scene feels {b}.",
    "The acting is {a} throughout, {b} and convincing.",
    "I loved {role}, whose {a} performance feels {b}.",
    "What {a}, {b} work from {role}!",
    "The actors share {b} chemistry, and {role} is {a}.",
    "The cast is {a}, and {role} adds {b} energy.",
    "{Role} is {b} and won me over.",
    "Thanks to {role}, every scene is {b}.",
    "I laughed with {role}, a {b}, {a} part.",
    "Everyone on screen is {a}, and {role} is {b}.",
    "{Role} has {b} charm and {a} timing.",
    "Best of all, {role} turns in {a}, {b} work.",
)
POSITIVE_CRAFT = (
    "{Craft} is {a}, and {plot} is {c}.",
    "The story is {c}, with {a} turns and great heart.",
    "{Plot} deserves praise, and {craft} is {c}.",
    "Both {plot} and {craft} are {a}.",
    "It has {c} moments, and {craft} is {a}.",
    "I admired {plot}, which is {c} and {a}.",
    "The plot is {c}, and {craft} is {a}.",
    "Every image looks {c}, and {plot} is {a}.",
    "{Plot} is {a}, and the jokes are {c}.",
    "The {c} pictures and {a} ideas are a treat.",
    "How {c} {craft} is, how {a} {plot}!",
)
POSITIVE_VERDICT = (
    "I left {mood} and would gladly see it again.",
    "It is one of the best films of the {season}.",
    "Highly recommended to anyone who loves {thing}.",
    "A {a} film and a true {noun}.",
    "I enjoyed every minute and recommend it {how}.",
    "{Who} adored it, and so did I.",
    "Go and see it, because it is a {noun}.",
    "My favorite film this {season}, and a great {noun}.",
    "It made me {mood}, and I am thankful.",
    "A {noun} for fans of {thing}.",
)

NEGATIVE_FILLERS: dict[str, tuple[str, ...]] = {
    **_SHARED,
    "a": words(
        "awful terrible horrible dreadful lousy bad pathetic poor weak dismal appalling horrid "
        "rotten miserable"
    ),
    "b": words(
        "dull boring annoying irritating lame stupid joyless disappointing unpleasant tedious "
        "slow wooden clumsy painful embarrassing frustrating foolish dreary"
    ),
    "c": words(
        "ugly messy confusing stale depressing crude ridiculous careless grim noisy shallow "
        "tiring empty tired"
    ),
    "mood": words("sad annoyed bored disappointed angry tired upset unhappy"),
    "noun": words("mess disaster failure bore waste insult letdown nuisance"),
    "thing": phrases(
        "bad jokes, boring talk, ugly pictures, stupid twists, lame speeches, awful acting, "
        "painful puns, dumb chases"
    ),
    "how": phrases("loudly, to skip it, all now, to stay away, in advance, here and now"),
    "who": POSITIVE_FILLERS["who"],
}

NEGATIVE_PEOPLE = (
    "{Role} is {a}, and every scene feels {b}.",
    "The acting is {a} throughout, {b} and unconvincing.",
    "I hated {role}, whose {a} performance feels {b}.",
    "What {a}, {b} work from {role}!",
    "The actors share {b} silences, and {role} is {a}.",
    "The cast is {a}, and {role} adds {b} noise.",
    "{Role} is {b} and wore me out.",
    "Because of {role}, every scene is {b}.",
    "I suffered with {role}, a {b}, {a} part.",
    "Everyone on screen is {a}, and {role} is {b}.",
    "{Role} has {b} habits and {a} timing.",
    "Worst of all, {role} turns in {a}, {b} work.",
)
NEGATIVE_CRAFT = (
    "{Craft} is {a}, and {plot} is {c}.",
    "The story is {c}, with {a} turns and sad clichés.",
    "{Plot} deserves blame, and {craft} is {c}.",
    "Both {plot} and {craft} are {a}.",
    "It has {c} moments, and {craft} is {a}.",
    "I disliked {plot}, which is {c} and {a}.",
    "The plot is {c}, and {craft} is {a}.",
    "Every image looks {c}, and {plot} is {a}.",
    "{Plot} is {a}, and the jokes are {c}.",
    "The {c} pictures and {a} ideas are a pain.",
    "How {c} {craft} is, how {a} {plot}!",
)
NEGATIVE_VERDICT = (
    "I left {mood} and would hate to see more.",
    "It is one of the worst films of the {season}.",
    "Avoid it, since all it has is {thing}.",
    "A {a} film and a complete {noun}.",
    "I regret every minute and warn you {how}.",
    "{Who} hated it, and so did I.",
    "Stay at home, because it is a {noun}.",
    "The worst film this {season}, and a sad {noun}.",
    "It made me {mood}, and I demand my money back.",
    "A {noun} for fans of {thing}.",
)
