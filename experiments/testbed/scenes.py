"""Generated scenes: textured backgrounds, distractor strokes and a few objects that questions can be asked about.

A scene is a list of `Item`s on a square canvas. Every (colour, shape) pair occurs at most once, so that "the red
circle" names one object, while shapes and colours repeat, so that naming it takes both words. Large objects may carry
a character. One tiny dot lies somewhere between them.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

CANVAS = 96  # pixels
COLOURS = {
    "red": (225, 40, 40),
    "green": (40, 190, 60),
    "blue": (50, 80, 235),
    "yellow": (240, 220, 40),
    "purple": (190, 50, 210),
    "cyan": (50, 215, 225),
}
SHAPES = ("circle", "square", "triangle", "cross", "star")
PLURALS = {shape: "crosses" if shape == "cross" else f"{shape}s" for shape in SHAPES}
CHARACTERS = ("c", "e", "h", "k", "t", "x", "4", "8")
SIZES = {"large": 22, "small": 14}  # pixels across
DOT = "dot"
DOT_ACROSS = 9
CHARACTER_HEIGHT = 15  # of the font, pixels
MATCHING_DOTS = 0.5  # share of scenes whose dot has the colour of one of the objects for certain


@dataclass(frozen=True)
class Item:
    """One object. `x`, `y` are its centre and `across` its extent, in pixels; `character` is "" where there is none."""

    shape: str
    colour: str
    size: str
    character: str
    x: float
    y: float
    across: int

    @property
    def box(self) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) in pixels."""
        half = self.across / 2
        return (self.x - half, self.y - half, self.x + half, self.y + half)

    @property
    def relative_box(self) -> list[float]:
        """[left, top, right, bottom] as shares of the canvas, in 0..1."""
        return [round(min(max(edge / CANVAS, 0.0), 1.0), 4) for edge in self.box]


@dataclass(frozen=True)
class Scene:
    """`items` are the objects, `dot` the tiny one; `texture_seed` fixes background and strokes."""

    items: tuple[Item, ...]
    dot: Item
    texture_seed: int


def _place(rng: np.random.Generator, across: int, taken: list[Item], gap: float) -> tuple[float, float] | None:
    """A centre at which a box of `across` pixels lies on the canvas `gap` pixels clear of the others, or None."""
    half = across / 2
    for _ in range(40):
        x, y = rng.uniform(half + 1, CANVAS - half - 1, size=2)
        if all(max(abs(x - o.x), abs(y - o.y)) > half + o.across / 2 + gap for o in taken):
            return float(x), float(y)
    return None


def sample_scene(rng: np.random.Generator) -> Scene:
    """Draw a scene: four to six objects from a small pool of shapes and colours, and one dot."""
    while True:
        count = int(rng.integers(4, 7))
        shapes = rng.choice(len(SHAPES), size=int(rng.integers(2, 4)), replace=False)
        colours = rng.choice(len(COLOURS), size=int(rng.integers(2, 5)), replace=False)
        pairs = [(SHAPES[s], tuple(COLOURS)[c]) for s in shapes for c in colours]
        if len(pairs) < count:
            continue
        chosen = rng.permutation(len(pairs))[:count]
        characters = rng.permutation(len(CHARACTERS))
        items: list[Item] = []
        for i, pair in enumerate(chosen):
            size = "large" if rng.random() < 0.6 else "small"
            centre = _place(rng, SIZES[size], items, gap=2)
            if centre is None:
                break
            carries = size == "large" and rng.random() < 0.8
            character = CHARACTERS[characters[i]] if carries else ""
            items.append(Item(*pairs[pair], size, character, *centre, SIZES[size]))
        place = _place(rng, DOT_ACROSS, items, gap=2) if len(items) == count else None
        if place is not None:
            among = [item.colour for item in items] if rng.random() < MATCHING_DOTS else list(COLOURS)
            dot = Item(DOT, among[rng.integers(len(among))], "tiny", "", *place, DOT_ACROSS)
            return Scene(tuple(items), dot, int(rng.integers(2**31)))


def render(scene: Scene) -> Image.Image:
    """Draw a scene as an RGB image of CANVAS x CANVAS pixels; the same scene gives the same pixels."""
    rng = np.random.default_rng(scene.texture_seed)
    image = _background(rng)
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(2, 6))):
        ends = rng.uniform(0, CANVAS, size=4).tolist()
        draw.line(ends, fill=tuple(int(v) for v in rng.integers(60, 170, size=3)), width=1)
    for item in (*scene.items, scene.dot):
        _draw_item(draw, item, rng)
    return image


def _background(rng: np.random.Generator) -> Image.Image:
    """Low-saturation texture: smooth blotches plus grain."""
    level = rng.uniform(50, 120)
    coarse = np.clip(level + rng.normal(0, 18, size=(7, 7, 3)).astype(np.float32), 0, 255).astype(np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((CANVAS, CANVAS), Image.Resampling.BILINEAR), dtype=np.float32)
    grain = rng.normal(0, 6, size=(CANVAS, CANVAS, 1)).astype(np.float32)
    return Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _polygon(shape: str, x: float, y: float, r: float) -> list[tuple[float, float]]:
    """Corner points of a shape of half-extent `r` centred at (x, y)."""
    if shape == "triangle":
        return [(x, y - r), (x + r, y + r), (x - r, y + r)]
    if shape == "cross":
        a = r * 0.42
        corners = [
            (-a, -r),
            (a, -r),
            (a, -a),
            (r, -a),
            (r, a),
            (a, a),
            (a, r),
            (-a, r),
            (-a, a),
            (-r, a),
            (-r, -a),
            (-a, -a),
        ]
        return [(x + dx, y + dy) for dx, dy in corners]
    radii = np.where(np.arange(10) % 2 == 0, r * 1.05, r * 0.5)
    angles = np.arange(10) * np.pi / 5 - np.pi / 2
    return [(x + float(q * np.cos(t)), y + float(q * np.sin(t))) for q, t in zip(radii, angles, strict=True)]


def _draw_item(draw: ImageDraw.ImageDraw, item: Item, rng: np.random.Generator) -> None:
    jitter = rng.integers(-14, 15, size=3)
    fill = tuple(int(np.clip(v + j, 0, 255)) for v, j in zip(COLOURS[item.colour], jitter, strict=True))
    left, top, right, bottom = item.box
    if item.shape in ("circle", DOT):
        draw.ellipse((left, top, right, bottom), fill=fill)
    elif item.shape == "square":
        draw.rectangle((left + 1, top + 1, right - 1, bottom - 1), fill=fill)
    else:
        draw.polygon(_polygon(item.shape, item.x, item.y, item.across / 2), fill=fill)
    if item.character:
        low = item.y + (item.across * 0.14 if item.shape == "triangle" else 0)
        dark = (10, 10, 10)
        draw.text(
            (item.x, low),
            item.character.upper(),
            fill=dark,
            font=_font(CHARACTER_HEIGHT),
            anchor="mm",
            stroke_width=0.6,
            stroke_fill=dark,
        )
