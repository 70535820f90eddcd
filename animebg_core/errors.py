"""Typed errors. The text of each is one line for a user: what was wanted, what came, what to do."""


class AnimeBGError(Exception):
    """Base of every error that this package raises on purpose."""


def first_line(error: BaseException) -> str:
    """What an error says first, or nothing: below it libraries put what tells users nothing."""
    return (str(error).strip().splitlines() or [""])[0]


class StyleError(AnimeBGError, ValueError):
    """A style name that is neither a known key nor an existing file."""


class OptionError(AnimeBGError, ValueError):
    """An option outside what it may be: strength, precision, device, memory limit."""


class ImageError(AnimeBGError, ValueError):
    """An image, as a tensor or as a file, that cannot be used."""


class VideoError(AnimeBGError, ValueError):
    """A clip that cannot be read, painted or written."""


class TrainingError(AnimeBGError):
    """Pictures that no style can be learned from, or a training that cannot go on."""


class ClusterError(AnimeBGError):
    """Work for many machines that cannot be given to them: no Ray, no cluster, no workers."""


class AddressError(AnimeBGError):
    """A file at an address (s3://, gs://, ...) that cannot be found, fetched or sent."""


class MaskError(AnimeBGError, ValueError):
    """A mask that does not fit its image."""


class WeightsError(AnimeBGError):
    """Base of everything that can be wrong with a network's file."""


class WeightsNotFoundError(WeightsError):
    """The file is in none of the places searched and was not to be downloaded."""


class DownloadError(WeightsError):
    """The file could not be fetched or written."""


class ChecksumError(DownloadError):
    """A download that has not the published size and SHA-256; it has been set aside."""


class CheckpointError(WeightsError):
    """A file that is no checkpoint of this generator, or a damaged or unsafe one."""


class MemoryBudgetError(AnimeBGError):
    """No plan fits the memory there is.

    Attributes:
        needed: bytes that the most frugal plan needs.
        available: bytes that were allowed.
    """

    def __init__(self, message: str, *, needed: int, available: int) -> None:
        super().__init__(message)
        self.needed = needed
        self.available = available
