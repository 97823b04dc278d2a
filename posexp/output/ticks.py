"""Round numbers for the ticks of an axis."""

import math


def both_sides(low: float, high: float, linear: float) -> list[float]:
    """Return at most 10 ticks, such as −10, −1, 0, 1, 10, of an axis that is linear within ±`linear`."""
    count = math.ceil(math.log10(max(-low, high, linear) / linear)) + 1
    for steps, apart in ((1, 2, 5), 1), ((1, 3), 1), *(((1,), apart) for apart in range(1, count + 1)):
        sizes = [step * linear * 10.0**power for power in range(0, count, apart) for step in steps]
        ticks = [-size for size in reversed(sizes)] + [0.0] + sizes
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) <= 10:
            break
    return inside


def y_ticks(low: float, high: float, most: int) -> list[float]:
    """Return up to `most` evenly spaced round numbers in [low, high]."""
    from matplotlib.ticker import MaxNLocator

    ticks = MaxNLocator(nbins=most - 1, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [float(tick) for tick in ticks if low <= tick <= high]


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """Return up to `most` round numbers in [low, high] for a logarithmic axis, evenly spaced if the range is small."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        inside = [tick for e in exponents for step in steps if low <= (tick := step * 10.0**e) <= high]
        if len(inside) < 4:
            break
        if len(inside) <= most:
            return inside
    else:
        return inside[:: -(-len(inside) // most)]
    return y_ticks(low, high, most)


def tick_text(tick: float) -> str:
    """Format a tick as 20, 22.5 or 1,000, and from a million on as a power of ten, such as 10⁶."""
    if tick < 1e6:
        return f"{tick:,.10g}"
    exponent = math.floor(math.log10(tick) + 1e-9)
    mantissa = f"{tick / 10.0**exponent:.3g}"
    power = "10" + str(exponent).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return power if mantissa == "1" else f"{mantissa}×{power}"
