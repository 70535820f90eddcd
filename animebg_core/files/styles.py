"""The styles, one frozen row each. A fifth network of the same shape is one more row."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Style:
    """One network as its author published it.

    Attributes:
        key: what a user types, e.g. "shinkai".
        label: what a user reads, e.g. "Makoto Shinkai".
        repository: Hugging Face model repository, or "" for a network shipped in weights/.
        file: published file name. The same stem with .safetensors is the same style, converted.
        size: bytes of the published file.
        sha256: lower-case hexadecimal SHA-256 of the published file.
        licence: SPDX identifier that the publisher declares.
    """

    key: str
    label: str
    repository: str
    file: str
    size: int
    sha256: str
    licence: str


def _by_key(*styles: Style) -> Mapping[str, Style]:
    return MappingProxyType({style.key: style for style in styles})


STYLES: Mapping[str, Style] = _by_key(
    Style(
        key="shinkai",
        label="Makoto Shinkai",
        repository="akiyamasho/AnimeBackgroundGAN-Shinkai",
        file="shinkai_makoto.pth",
        size=44_529_096,
        sha256="c3547f611e780e79aebde7f7bc2b6c278555d701620f125583d666351044c486",
        licence="MIT",
    ),
    Style(
        key="hosoda",
        label="Mamoru Hosoda",
        repository="akiyamasho/AnimeBackgroundGAN-Hosoda",
        file="hosoda_mamoru.pth",
        size=44_529_096,
        sha256="c666eea7700864d5972765cc43e926d900174648297bfef494006dc230fd1bf0",
        licence="MIT",
    ),
    Style(
        key="miyazaki",
        label="Hayao Miyazaki",
        repository="akiyamasho/AnimeBackgroundGAN-Miyazaki",
        file="miyazaki_hayao.pth",
        size=44_529_096,
        sha256="8ab0e492efb3b705487db38679e363dc8b1f016692913bbe100587d695a9e2b5",
        licence="MIT",
    ),
    Style(
        key="kon",
        label="Satoshi Kon",
        repository="akiyamasho/AnimeBackgroundGAN-Kon",
        file="kon_satoshi.pth",
        size=44_529_096,
        sha256="0629352a54838e56a2ad7fca3e6e51e6889d4338c37469f9ddb43e5929ef9475",
        licence="MIT",
    ),
)

# Small networks of the project's own, shipped in weights/, taught by the published ones.
LITE_STYLES: Mapping[str, Style] = _by_key(
    Style(
        key="shinkai-lite",
        label="Makoto Shinkai (Lite)",
        repository="",
        file="animebg-lite-shinkai.safetensors",
        size=1_301_800,
        sha256="81dc31697ff218a1253333f67567f23e79a138f1f346b9c8aa05459fcf055ad3",
        licence="MIT",
    ),
    Style(
        key="hosoda-lite",
        label="Mamoru Hosoda (Lite)",
        repository="",
        file="animebg-lite-hosoda.safetensors",
        size=1_301_800,
        sha256="3192ca7a92a6621790490a1eac63b247dcabc65f439a37263386f76bd3b2baf2",
        licence="MIT",
    ),
    Style(
        key="miyazaki-lite",
        label="Hayao Miyazaki (Lite)",
        repository="",
        file="animebg-lite-miyazaki.safetensors",
        size=1_301_808,
        sha256="e61e098a1f66482623715dda0f71a24516a64325aa9c9aa8bde90df48a5738a5",
        licence="MIT",
    ),
    Style(
        key="kon-lite",
        label="Satoshi Kon (Lite)",
        repository="",
        file="animebg-lite-kon.safetensors",
        size=1_301_800,
        sha256="0936fbe275fbf691522622d1156e8e07793cc96b56f9663575c9f8af94533460",
        licence="MIT",
    ),
)

DEFAULT_STYLE = "shinkai"
