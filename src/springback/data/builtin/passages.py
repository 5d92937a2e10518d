"""Short passages of general knowledge: plain prose that no fine-tuning of a chat model is about."""

from __future__ import annotations

from springback.core import Row, Slice
from springback.data.builtin.grammar import require_count

PASSAGES = (
    "Rivers carry sand and mud from the hills to the sea. Where the water slows down, it drops "
    "what it carries, and over thousands of years the deposits grow into a flat and fertile delta.",
    "The printing press spread through Europe in the second half of the fifteenth century. Books "
    "became cheaper, and people who had never owned one began to read at home.",
    "A bicycle stays upright because the rider steers into every small fall. The faster it goes, "
    "the smaller the corrections need to be, which is why a slow bicycle wobbles.",
    "Bread rises because yeast eats sugar and gives off carbon dioxide. The gas is trapped in the "
    "stretchy dough, and the heat of the oven sets the walls around the bubbles.",
    "The Moon always shows the same face to the Earth. It turns once on its axis in the time that "
    "it takes to go around us, so its far side was not seen until a spacecraft flew past.",
    "Penguins live mostly in the southern half of the world. They cannot fly, but under water they "
    "use their wings as flippers and can chase fish at surprising speed.",
    "In a parliamentary system the government depends on the support of the legislature. If it "
    "loses a vote of confidence, it usually has to resign or call a new election.",
    "Glass is made by melting sand together with soda and lime. While it is hot it can be blown, "
    "pressed or drawn, and it must be cooled slowly or it will crack.",
    "The heart of an adult beats about seventy times a minute at rest. With each beat it "
    "pushes blood into the arteries, and the pressure of this wave can be felt at the wrist.",
    "Coffee was first grown in Ethiopia and Yemen. Merchants brought the beans to the cities "
    "around the Mediterranean, where coffee houses soon became places to talk and trade.",
    "An orchestra tunes to the oboe, whose tone is steady and easy to hear. The players listen for "
    "the slow beating between two notes and adjust until it disappears.",
    "Cats can see well in dim light because their eyes have a layer that reflects light back "
    "through the retina. This is also why their eyes shine when a lamp falls on them.",
    "The first railways were built to move coal from mines to harbours. Passengers were an "
    "afterthought, but within a few decades trains had changed how people thought about distance.",
    "Salt lowers the temperature at which water freezes. In winter it is spread on roads so that "
    "the ice melts, although in very deep cold it no longer helps.",
    "A map cannot show the round Earth on a flat page without some distortion. Some projections "
    "keep areas right, others keep angles right, and none can do both everywhere.",
    "Bees tell each other where flowers are by dancing on the comb. The direction of the dance "
    "gives the angle to the sun, and its length gives the distance.",
    "Steel is iron with a small amount of carbon in it. Too little leaves the metal soft, and too "
    "much makes it brittle, so the art lies in the proportion.",
    "Many languages have no word for the number that comes before one. The zero that we use today "
    "came from India and reached Europe through the books of Arab mathematicians.",
    "The leaves of many trees turn red and yellow in autumn. As the days grow shorter, the green "
    "pigment breaks down, and colours that were there all along become visible.",
    "A lighthouse sends out a pattern of flashes that is its own. Sailors look the pattern up in a "
    "list of lights and so know which part of the coast they see.",
    "Chess came from India by way of Persia. Its rules changed slowly until the fifteenth century, "
    "when the queen became the strongest piece and games grew much shorter.",
    "Sound travels faster through water than through air, and faster still through steel. A person "
    "with an ear on the rail can hear a train long before it arrives.",
    "Wool keeps its wearer warm even when it is wet. The fibres are crimped, so a lot of air is "
    "held between them, and air is a poor conductor of heat.",
    "The Sahara was green six thousand years ago. Lakes and grasslands covered what is now sand, "
    "and paintings on rocks show cattle, giraffes and people swimming.",
    "A thermostat compares the temperature of a room with the one that was set. When the room is "
    "too cold it switches the heating on, and when it is warm enough it switches it off.",
    "Rice needs a great deal of water while it grows. In many countries it is planted in flooded "
    "fields, where the water also keeps down the weeds.",
    "The kidneys filter the whole of the blood many times a day. What the body can use is "
    "taken back, and the rest leaves it as urine.",
    "Paper was made from rags for hundreds of years. Only in the nineteenth century did wood "
    "become the usual material, which made newspapers cheap enough for everyone.",
    "A glacier is a river of ice that moves a few metres in a week. It scrapes the valley beneath "
    "it and leaves behind heaps of stones where it melts.",
    "In music, an octave is the distance between a note and the next one of the same name. The "
    "higher note vibrates exactly twice as fast as the lower.",
    "The potato came to Europe from the Andes in the sixteenth century. At first it was grown for "
    "its flowers, and it took two hundred years to become an everyday food.",
    "Sharks have no bones. Their skeletons are made of cartilage, which is lighter, and they must "
    "keep swimming or they will sink, since they have no swim bladder.",
    "A will is a document that says what should happen to a person's property after death. In "
    "most places it has to be signed in front of witnesses to be valid.",
    "Clouds are made of tiny drops of water or crystals of ice. They float because the drops are "
    "so small that the rising air is enough to hold them up.",
    "The ancient Romans built roads in straight lines wherever they could. Layers of stone and "
    "gravel drained the surface, and some of these roads are still in use.",
    "An elevator has a counterweight that balances the cabin. The motor only has to lift the "
    "difference, which is why even a tall building needs a modest engine.",
    "Tea leaves turn black when they are left to wither and react with the air. If they are heated "
    "soon after picking, the reaction stops, and the tea stays green.",
    "The pupil of the eye grows wider in the dark and narrower in bright light. It does this by "
    "itself, and a doctor with a small lamp can see whether it works.",
    "A sonnet has fourteen lines. Poets of the Renaissance used it for love, but later writers "
    "filled the same form with politics, grief and jokes.",
    "Earthquakes begin where two plates of the crust slip past each other. The waves spread from "
    "there, and their delay at several stations shows where the slip took place.",
    "Honey does not spoil if it is kept dry. It holds so little water and so much sugar that "
    "bacteria cannot grow in it.",
    "A library arranges its books so that those on one subject stand together. The number on the "
    "spine tells both the subject and the place on the shelf.",
    "Camels store fat, not water, in their humps. They can go for a week without drinking because "
    "they lose little water and can bear a large loss.",
    "The metre was meant to be one ten-millionth of the distance from the pole to the equator. "
    "Today it is defined by how far light travels in a tiny part of a second.",
    "Soap works because one end of its molecules is drawn to water and the other to grease. It "
    "surrounds small drops of grease so that they can be rinsed away.",
    "A harbour needs deep water and shelter from the wind. Where nature gives neither, people have "
    "built long walls into the sea and dug the basin out behind them.",
    "Mushrooms are neither plants nor animals. What we see is only the fruit, while the fungus "
    "itself is a web of fine threads that runs through the soil.",
    "Before refrigerators, ice was cut from frozen lakes in winter and packed in sawdust. Ships "
    "carried it to warm countries, where part of it arrived months later.",
)


def passages(n: int) -> Slice:
    """The first ``n`` passages as rows of kind ``text``.

    Raises :class:`springback.errors.DataError` for more than there are.
    """
    require_count("passages", n, len(PASSAGES))
    rows = (Row("text", "", text) for text in PASSAGES[:n])
    return Slice.of("passages", "built-in passages", rows)
