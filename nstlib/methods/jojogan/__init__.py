"""One portrait is enough: JoJoGAN fine-tunes a generator of faces until everything it draws has its style.

Chong and Forsyth 2022, "JoJoGAN: One Shot Face Stylization". A network needs pairs to learn a style from: a
face, and the same face in the style. There is one picture in the style, and no face to it. Inversion finds a
face: the codes from which the generator draws something like the style picture. Then the fine codes are
replaced by random ones. That is another face each time, of the same structure, and each is paired with the
style picture. A generator that learns to give the style picture for all of them has to take the style into
its weights, and keeps what the coarse codes say of a face.
"""

from .method import JoJoGAN
from .pairs import PairsTask
from .settings import AS_PRINTED, AS_RELEASED, KEEPING_COLORS, SMALL, Settings

__all__ = ["AS_PRINTED", "AS_RELEASED", "KEEPING_COLORS", "SMALL", "JoJoGAN", "PairsTask", "Settings"]
