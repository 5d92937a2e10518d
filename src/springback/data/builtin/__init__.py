"""Two built-in sets made by seeded grammars: film reviews and word problems."""
