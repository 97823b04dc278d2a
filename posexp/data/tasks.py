"""The synthetic tasks: examples of any size whose answer can be checked.

An example is a prompt, its answer and a newline: `abcd>abcd`. The hash of a prompt determines its split, so no prompt
can occur in two splits.
"""

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice, pairwise
from string import ascii_letters, ascii_lowercase, ascii_uppercase, digits

from posexp.config.sections import DataConfig, Split
from posexp.errors import Misuse

HELD_OUT = 20  # training examples per validation example, and per test example
MOST = 10**10  # characters, about, of all examples of the largest size
LEAST = {"parity": 8, "flipflop": 8}  # sizes with prompts enough for three splits; other tasks begin at 1
PASSKEY_DIGITS = 5
NEEDLES = 4  # keys of needle_multi
CHAINS, CHAIN = 2, 3  # of variables: chains, and the variables of each
SELECTED = 16  # letters of an example of selective_copy, as many as in the paper
FILLER = (
    *("Rain fell on the hill.", "A cart went by.", "Nobody looked up."),
    *("The mill stood still.", "Two birds sang.", "It grew dark."),
)

Example = tuple[str, str]  # prompt and answer


def copy(draw: random.Random, size: int) -> Example:
    """Draw `size` letters; the answer repeats them."""
    text = "".join(draw.choices(ascii_lowercase, k=size))
    return f"{text}>", text


def copy_unique(draw: random.Random, size: int) -> Example:
    """Draw `size` letters without a repeated trigram; the answer repeats them.

    Two letters then determine the next one, as n-grams do in the construction of Jelassi et al. (2024, arXiv
    2402.01032, section 2).
    """
    text, seen = "", set[str]()
    while len(text) < size:
        fresh = [letter for letter in ascii_lowercase if text[-2:] + letter not in seen]
        text += draw.choice(fresh or ascii_lowercase)
        seen |= {text[-3:]} if len(text) > 2 else set()
    return f"{text}>", text


def selective_copy(draw: random.Random, size: int) -> Example:
    """Draw `size` characters, a quarter of them letters (at most 16) among dots; the answer repeats the letters.

    The places of the letters are random, so that distances do not solve the task (Gu and Dao 2023, arXiv 2312.00752,
    section 3.1).
    """
    places = sorted(draw.sample(range(size), max(1, min(SELECTED, size // 4))))
    text = ["."] * size
    for place in places:
        text[place] = draw.choice(ascii_lowercase)
    return f"{''.join(text)}>", "".join(text[place] for place in places)


def sort(draw: random.Random, size: int) -> Example:
    """Draw `size` letters; the answer has them in alphabetical order (Zhou et al. 2023, arXiv 2310.16028)."""
    text = draw.choices(ascii_lowercase, k=size)
    return f"{''.join(text)}>", "".join(sorted(text))


def mode(draw: random.Random, size: int) -> Example:
    """Draw `size` letters out of five; the answer is the one most frequent (Zhou et al. 2023, as above)."""
    letters = draw.sample(ascii_lowercase, 5)
    while True:
        text = draw.choices(letters, k=size)
        (first, most), *others = Counter(text).most_common(2)
        if not others or others[0][1] < most:
            return f"{''.join(text)}>", first


def parity(draw: random.Random, size: int) -> Example:
    """Draw `size` bits; the answer is 1 if the number of ones is odd (Zhou et al. 2023, as above)."""
    bits = draw.choices("01", k=size)
    return f"{''.join(bits)}>", str(bits.count("1") % 2)


def flipflop(draw: random.Random, size: int) -> Example:
    """Draw `size` instructions with a bit each and a last read; the answer is the bit that was last written.

    w writes, i is ignored, and r reads what was last written. The first instruction writes, and the others are drawn as
    in FFL(0.8) (Liu et al. 2023, arXiv 2306.00946): i with probability 0.8, w and r with 0.1 each.
    """
    text, written = "", ""
    for what in "w" + "".join(draw.choices("wri", (1, 1, 8), k=size - 1)):
        bit = written if what == "r" else draw.choice("01")
        written = bit if what == "w" else written
        text += what + bit
    return f"{text}r", written


def reverse(draw: random.Random, size: int) -> Example:
    """Draw `size` letters; the answer is their reverse."""
    text = "".join(draw.choices(ascii_lowercase, k=size))
    return f"{text}>", text[::-1]


def addition(draw: random.Random, size: int) -> Example:
    """Draw two numbers of `size` digits; the answer is their sum in size + 1 digits, padded with zeros.

    All numbers have their least significant digit first, so each digit of the sum depends on digits at one distance and
    the carry (Lee et al. 2023, arXiv 2307.03381; Zhou et al. 2023, arXiv 2310.16028).
    """
    one, other = ("".join(draw.choices(digits, k=size)) for _ in range(2))
    total, carry = "", 0
    for a, b in zip(one, other, strict=True):
        carry, digit = divmod(int(a) + int(b) + carry, 10)
        total += str(digit)
    return f"{one}+{other}=", f"{total}{carry}"


def induction(draw: random.Random, size: int) -> Example:
    """Draw `size` letters with a digit each; the answer is that of one letter (Ba et al. 2016, arXiv 1610.06258)."""
    if size > len(ascii_letters):
        raise Misuse(f"the task induction has at most {len(ascii_letters)} pairs, not {size}")
    keys, values = draw.sample(ascii_letters, size), draw.choices(digits, k=size)
    query = draw.randrange(size)
    return "".join(map("".join, zip(keys, values, strict=True))) + f">{keys[query]}", values[query]


def passkey(draw: random.Random, size: int) -> Example:
    """Hide a number among `size` unrelated sentences; the answer is the number (Mohtashami and Jaggi, 2305.16300)."""
    number = "".join(draw.choices(digits, k=PASSKEY_DIGITS))
    sentences = unrelated(draw, size)
    sentences.insert(draw.randrange(size + 1), f"The key is {number}. Remember {number}.")
    return " ".join([*sentences, "What is the key? The key is "]), f"{number}."


def needle(draw: random.Random, size: int) -> Example:
    """Hide a key and its number among `size` unrelated sentences; the answer is the number of the key.

    The task is RULER's single needle (Hsieh et al. 2024, arXiv 2404.06654, section 3) with other sentences.
    """
    return needles(draw, size, 1)


def needle_multi(draw: random.Random, size: int) -> Example:
    """Hide NEEDLES keys, each with a number, among `size` unrelated sentences; the answer is the number of one.

    The task is RULER's needle with several keys (as above). Three keys are distractors here.
    """
    return needles(draw, size, NEEDLES)


def variables(draw: random.Random, size: int) -> Example:
    """Hide chains `Q = 48213. B = Q. C = B.` among `size` unrelated sentences; the answer is the letters of one chain.

    The task is RULER's variable tracking (as above), with two chains of three variables. The statements of a chain are
    in order, and those of the chains are mixed.
    """
    names, numbers = draw.sample(ascii_uppercase, CHAINS * CHAIN), five_digits(draw, CHAINS)
    chains = [names[n::CHAINS] for n in range(CHAINS)]
    facts = [
        iter([f"{letters[0]} = {number}.", *(f"{name} = {before}." for before, name in pairwise(letters))])
        for letters, number in zip(chains, numbers, strict=True)
    ]
    order = draw.sample([*range(CHAINS)] * CHAIN, CHAINS * CHAIN)
    asked = draw.randrange(CHAINS)
    text = hidden(draw, size, [next(facts[which]) for which in order])
    return f"{text} Which letters are {numbers[asked]}? They are ", f"{''.join(chains[asked])}."


def needles(draw: random.Random, size: int, count: int) -> Example:
    keys, numbers = draw.sample(ascii_uppercase, count), five_digits(draw, count)
    asked = draw.randrange(count)
    facts = [f"The code of {key} is {number}." for key, number in zip(keys, numbers, strict=True)]
    return f"{hidden(draw, size, facts)} What is the code of {keys[asked]}? It is ", f"{numbers[asked]}."


def five_digits(draw: random.Random, count: int) -> list[str]:
    """Draw different numbers."""
    return [f"{number:05}" for number in draw.sample(range(10**5), count)]


def hidden(draw: random.Random, size: int, facts: Sequence[str]) -> str:
    """Return `size` unrelated sentences with `facts` among them, in their order, at random places."""
    places = sorted(draw.choices(range(size + 1), k=len(facts)))
    sentences = unrelated(draw, size)
    for place, fact in reversed([*zip(places, facts, strict=True)]):
        sentences.insert(place, fact)
    return " ".join(sentences)


def unrelated(draw: random.Random, size: int) -> list[str]:
    """Return `size` sentences of FILLER in its order, again and again, from a random one on.

    So all of them occur in training, whatever its sizes.
    """
    start = draw.randrange(len(FILLER))
    return [FILLER[(start + n) % len(FILLER)] for n in range(size)]


TASKS: dict[str, Callable[[random.Random, int], Example]] = {
    make.__name__: make
    for make in (
        *(copy, copy_unique, selective_copy, reverse, sort, mode, parity, flipflop),
        *(addition, induction, passkey, needle, needle_multi, variables),
    )
}


def examples(name: str, sizes: Sequence[int], split: Split) -> Iterator[Example]:
    """Yield examples of `split` without end, of sizes drawn uniformly. Equal arguments give equal examples."""
    if min(sizes, default=0) < (least := LEAST.get(name, 1)):
        raise Misuse(f"the task {name} has sizes from {least} on, not {min(sizes, default=0)}")
    draw = random.Random(f"{name} {sizes} {split.value}")
    while True:
        example = TASKS[name](draw, draw.choice(sizes))
        if home(example[0]) is split:  # every split has examples of the least size
            yield example


def home(prompt: str) -> Split:
    """Return the split of a prompt: training for eight of ten prompts."""
    tenth = int.from_bytes(hashlib.sha256(prompt.encode()).digest()) % 10
    return {0: Split.valid, 1: Split.test}.get(tenth, Split.train)


def line(example: Example) -> str:
    return "".join(example) + "\n"


def read_task(config: DataConfig) -> dict[Split, Iterator[str]]:
    """Return the documents of each split, one example each, of sizes up to config.task_size."""
    if config.task not in TASKS:
        raise Misuse(f"no task {config.task!r}; there are {', '.join(TASKS)}")
    if config.task_size * config.task_examples > MOST:
        raise Misuse(
            f"data.task_size={config.task_size} times data.task_examples={config.task_examples} is more than {MOST:,}: "
            "lower one of them"
        )
    held_out = -(-config.task_examples // HELD_OUT)
    counts = {Split.train: config.task_examples, Split.valid: held_out, Split.test: held_out}
    sizes = range(min(LEAST.get(config.task, 1), config.task_size), config.task_size + 1)
    return {split: map(line, islice(examples(config.task, sizes, split), count)) for split, count in counts.items()}


def task_content(config: DataConfig) -> list[str | int]:
    """Return what identifies the examples, with a hash of their text. Raises Misuse as `read_task` does."""
    digest = hashlib.sha256()
    for split, texts in read_task(config).items():
        for text in chain([f"{split.value}\n"], texts):
            digest.update(text.encode())
    return [config.task, config.task_size, digest.hexdigest()]
