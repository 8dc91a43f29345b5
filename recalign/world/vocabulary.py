"""The names in the synthetic world: every attribute value is one word, every title is invented."""

import numpy as np

from recalign.seeding import stream

GENRES = """Comedy Thriller War Romance Western Fantasy Horror Sport Crime Musical Documentary
Animation Drama Mystery Adventure Biography Satire Espionage Science-Fiction Family Disaster
Martial-Arts Courtroom Gothic Heist Superhero Travel Cooking Medical Political Nature Religious
Survival Fable Epic Noir Pirate Silent Puppet Experimental""".split()
ERAS = "1930s 1940s 1950s 1960s 1970s 1980s 1990s 2000s 2010s 2020s".split()
MOODS = "dark light tense tender playful melancholic hopeful eerie dreamy gritty wry solemn".split()
SURNAME_STARTS = """Mar Ber Cal Dor El Fen Gal Hal Ing Jar Kes Lor Mel Nor Or Pel Quin Ros Sel Tor
Ul Ver Wil Yar Zel Ash Bran Cor Dal Eg Far Gren Hol Il Jen Kal Lan Mon Nev Os""".split()
SURNAME_ENDS = """low ton wick den mere strin va gard holm esco ini owska sen ley ford bury quist
dahl mann eau ier oni aga iro ette worth combe stad lund berg ovic enko ides akis ades anti elli
ucci ando eira ano yama moto kawa hara dottir stone field shaw croft""".split()
ADJECTIVES = """Silent Crooked Amber Hollow Distant Broken Gilded Burning Frozen Hidden Last Long
Paper Quiet Red Salt Second Seventh Sleeping Stolen Thin Wandering White Wild Winter Copper Empty
Endless Forgotten Glass Golden Grey Iron Ivory Lonely Midnight Northern Painted Scarlet
Velvet""".split()
NOUNS = """Harbour Orchard Lantern River Station Garden Letter Mirror Bridge Island Clock Door
Engine Feather Field Forest Hour House Key Kingdom Ladder Lighthouse Map Market Mountain Needle
Ocean Parade Promise Road Room Season Shadow Song Stair Stranger Summer Tide Tower Train Valley
Violin Voyage Wall Window Witness Wolf Year Yard Border""".split()
PLACES = """Vesper Arden Tamsin Corvale Old-Quay Lisbet Marrow Nineveh-Street Ostrava Pell
Quarry-Hill Rhona Saint-Olm Thessaly Undine Wexley Yarrow Zennor Bellmouth Carrick""".split()


def surnames(n: int, seed: int) -> list[str]:
    """`n` different invented surnames (at most 2,000), in an order that depends on the seed."""
    codes = stream(seed, "world", "surnames").permutation(len(SURNAME_STARTS) * len(SURNAME_ENDS))
    width = len(SURNAME_ENDS)
    return [SURNAME_STARTS[code // width] + SURNAME_ENDS[code % width] for code in codes[:n]]


def titles(n: int, seed: int) -> list[str]:
    """`n` different invented titles; beyond 42,000 they carry a number as sequels do."""
    rng = stream(seed, "world", "titles")
    short = [f"The {adjective} {noun}" for adjective in ADJECTIVES for noun in NOUNS]
    names = [short[code] for code in rng.permutation(len(short))]
    if n > len(names):
        long = [f"{name} of {place}" for name in names for place in PLACES]
        names += [long[code] for code in rng.permutation(len(long))]
    sequels = range(1, -(-n // len(names)))
    names += [f"{name} {number + 1}" for number in sequels for name in names]
    return names[:n]


def padded_ids(prefix: str, n: int) -> np.ndarray:
    """Ids such as 'i0001' that sort as their numbers do, object [n]."""
    width = len(str(n))
    return np.array([f"{prefix}{number:0{width}d}" for number in range(1, n + 1)], dtype=object)
