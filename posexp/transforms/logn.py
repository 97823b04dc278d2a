"""Log-n attention scaling. Su 2021, kexue.fm/archives/8823; Chiang and Cholak 2022, arXiv 2202.12172, section 5.3."""

from posexp.dims import Dims
from posexp.schemes import Scheme
from posexp.temperatures import Temperature, build_temperature
from posexp.transforms import NotApplicable, Transform
from posexp.windows import Window, at_least


class LogNScaling(Transform):
    """Attention that sharpens as inputs grow beyond the training length, `temperature=logn` of a trained run.

    Raises NotApplicable for a run that was trained with a temperature.
    """

    def __init__(self, dims: Dims):
        super().__init__(dims)
        at_least("train.length", dims.train_length, 2)  # its logarithm divides

    def apply(self, scheme: Scheme, window: Window, length: int) -> tuple[Scheme, Window]:
        if isinstance(scheme, Temperature):
            raise NotApplicable(f"{scheme.fingerprint()} has a temperature already")
        return build_temperature("logn", scheme, floor=1.0), window

    def describe(self, length: int) -> str:
        return f"logn(from={self.dims.train_length})"
