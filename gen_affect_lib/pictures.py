"""Pictures of any size and mode, brought to the square that the networks read."""

from PIL import Image, ImageOps


def square(picture: Image.Image, size: int) -> Image.Image:
    """The centred square of a picture as RGB, size × size; white where the picture was transparent."""
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    picture = picture.convert("RGB")
    # Of PIL's filters HAMMING comes closest to drawing an avatar small at once; for enlarging it is too coarse.
    smaller = Image.Resampling.HAMMING if min(picture.size) > size else Image.Resampling.LANCZOS
    return ImageOps.fit(picture, (size, size), smaller)
