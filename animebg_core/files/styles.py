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
        size=1_301_704,
        sha256="229d3ae9976de0b1461812d4343f11aa3c473178bba86fdbbe401ce7f81a181b",
        licence="MIT",
    ),
    Style(
        key="hosoda-lite",
        label="Mamoru Hosoda (Lite)",
        repository="",
        file="animebg-lite-hosoda.safetensors",
        size=1_301_704,
        sha256="945e7e4bb76110a34ae3d8b89ed4208003aaa4ee07014a622698c762bc9dc8ef",
        licence="MIT",
    ),
    Style(
        key="miyazaki-lite",
        label="Hayao Miyazaki (Lite)",
        repository="",
        file="animebg-lite-miyazaki.safetensors",
        size=1_301_704,
        sha256="a43b3342a382b35f0dfe5250c290a387835f6d91f0135d123a3f772f1996c7cb",
        licence="MIT",
    ),
    Style(
        key="kon-lite",
        label="Satoshi Kon (Lite)",
        repository="",
        file="animebg-lite-kon.safetensors",
        size=1_301_696,
        sha256="7196739085b83450decec191095a052250d43eb213ffb7f6d4adc16b27dc1cc1",
        licence="MIT",
    ),
)

DEFAULT_STYLE = "shinkai"
