"""Every convolution of the kernels against torch in float64."""

import os
from dataclasses import replace

import animebg_kernels as ak
import pytest
import torch
from cases import check, inputs_of, random_case, run

# As many as the fastest set is given; each other one is given a tenth.
CASES = int(os.environ.get("ANIMEBG_KERNELS_CASES", "10000"))


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # maps of a few pixels
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("tenth", range(10))
def test_random_shapes_give_what_torch_gives_in_float64(library, tenth):
    for seed in range(tenth, CASES, 10):
        check(library, random_case(seed))


def test_every_instruction_set_of_this_processor_does(path, library):
    for name in library.sets[1:]:
        chosen = ak.Library(path, name)
        for seed in range(CASES // 10):
            check(chosen, random_case(seed))


def test_channels_of_the_published_networks_over_several_tasks(library):
    base = random_case(0)
    for inputs, outputs in ((64, 64), (256, 128), (128, 256)):
        for kernel, stride, transposed in ((3, 1, False), (3, 2, False), (3, 2, True)):
            check(
                library,
                replace(
                    base, kernel=kernel, stride=stride, transposed=transposed, shuffled=False,
                    reflect=not transposed, normed=True, tanh=False, inputs=inputs,
                    outputs=outputs, height=11, width=230, norm=True, clamped=False,
                    source_type=torch.float32, made_type=torch.float32, crop=0, threads=2,
                    strips=(22,) if transposed else (11,) if stride == 1 else (6,),
                ),
            )  # fmt: skip


@pytest.mark.parametrize("seed", range(40))
def test_cuts_and_threads_change_nothing_but_rounding(library, seed):
    case = random_case(seed)
    given = inputs_of(case)
    cut = run(library, replace(case, threads=1), given)
    whole = run(library, replace(case, strips=(sum(case.strips),), threads=1), given)
    shared = run(library, replace(case, strips=(sum(case.strips),), threads=3), given)
    assert torch.equal(whole.made, shared.made)
    # Tiles that begin at other rows round differently.
    bound = 8e-6 if case.made_type == torch.float32 else 4e-3
    largest = whole.made.abs().max().item() + 1
    assert (cut.made.float() - whole.made.float()).abs().max() <= bound * largest


def test_a_flat_map_has_no_variance_but_rounding(library):
    case = replace(
        random_case(0), kernel=3, stride=1, transposed=False, shuffled=False, reflect=True,
        normed=True, tanh=False, inputs=64, outputs=64, height=64, width=64, norm=False,
        clamped=False, relu=False, source_type=torch.float32, made_type=torch.float32,
        strips=(16,) * 4, crop=0, threads=2,
    )  # fmt: skip
    given = inputs_of(case)
    given["source"] = torch.full_like(given["source"], 100.0)
    result = run(library, case, given)
    mean, m2 = result.moments
    # Sums of squares would leave 1e-7 of the square of 100. Here every tile is the same number but
    # for the rounding of its transforms, 1e-6 of it.
    assert mean.abs().max() > 1
    assert (m2 / (16 * 64)).sqrt().max() <= 1e-6 * 100


def test_tanh_is_tanh_from_end_to_end(library):
    case = replace(
        random_case(0), kernel=1, stride=1, transposed=False, shuffled=False, normed=False,
        tanh=True, inputs=1, outputs=2, height=1, width=40_001, norm=False, clamped=False,
        relu=False, source_type=torch.float32, made_type=torch.float32, strips=(1,), crop=0,
        threads=1,
    )  # fmt: skip
    given = inputs_of(case)
    numbers = torch.linspace(-20, 20, 40_001)
    numbers[0], numbers[-1] = -torch.inf, torch.inf
    given["source"] = numbers[None, :, None]
    given["weight"].fill_(1)
    given["bias"] = torch.tensor([0, torch.nan])
    made, none = run(library, case, given).made[0].unbind(1)
    assert (made.double() - numbers.double().tanh()).abs().max() <= 4e-7
    assert made.abs().max() <= 1
    assert none.isnan().all()  # a broken network is not to look like a black picture


def test_what_is_not_at_hand_is_refused(library):
    case = random_case(3)
    given = inputs_of(case)
    weight = given["weight"].data_ptr()
    conv = ak.Conv(case.kernel, 1, False, False, False, False, False, case.inputs, case.outputs)
    layer = ak.Layer(library, conv, weight, None)
    with pytest.raises(ak.KernelsError, match="rows are missing"):
        layer.run(ak.Rows(first=0, last=1, height=9, width=4, start=3, stop=4, made_width=4))
    moments = torch.zeros(1)
    with pytest.raises(ak.KernelsError, match="without moments"):
        layer.run(
            ak.Rows(first=0, last=9, height=9, width=4, start=3, stop=4, made_width=4,
                    mean=moments.data_ptr())
        )  # fmt: skip
    with pytest.raises(ak.KernelsError, match="without weights"):
        ak.Layer(library, conv, None, None).run(ak.Rows(start=0, stop=1))


@pytest.mark.parametrize(
    "conv",
    [
        ak.Conv(4, 1, False, False, False, False, False, 8, 8),
        ak.Conv(3, 3, False, False, False, False, False, 8, 8),
        ak.Conv(5, 2, True, False, False, False, False, 8, 8),
        ak.Conv(3, 1, False, True, False, False, False, 8, 6),
        ak.Conv(3, 1, False, False, False, True, True, 8, 8),
        ak.Conv(3, 2, True, False, False, False, True, 8, 8),
        ak.Conv(9, 1, False, False, False, False, False, 8, 8),
        ak.Conv(3, 1, False, False, False, False, False, 0, 8),
    ],
)
def test_convolutions_that_have_no_form_are_refused(library, conv):
    with pytest.raises(ak.KernelsError, match="no such convolution"):
        ak.Layer(library, conv, None, None)


@pytest.mark.parametrize("channels", [1, 16, 20, 64])
@pytest.mark.parametrize("kind", [torch.float32, torch.float16])
@pytest.mark.parametrize("added", [False, True])
def test_settled_maps_are_what_torch_makes_of_them(library, channels, kind, added):
    g = torch.Generator().manual_seed(channels)
    data = torch.randn(1100, channels, generator=g).to(kind)
    branch = torch.randn(1100, channels, generator=g).to(kind)
    factor, offset = torch.randn(2, channels, generator=g)
    low, high = -torch.rand(channels, generator=g), torch.rand(channels, generator=g)
    raw = (branch if added else data).double()
    wanted = torch.minimum(torch.maximum(raw, low.double()), high.double())
    wanted = wanted * factor.double() + offset.double() + (data.double() if added else 0)
    library.settle(
        ak.Sum(
            map=data.data_ptr(), branch=branch.data_ptr() if added else None,
            type=int(kind == torch.float16), channels=channels, pixels=len(data),
            factor=factor.data_ptr(), offset=offset.data_ptr(), low=low.data_ptr(),
            high=high.data_ptr(), relu=True, threads=2,
        )
    )  # fmt: skip
    # One rounding of values below 10.
    bound = 5e-6 if kind == torch.float32 else 5e-3
    assert (data.double() - wanted.relu()).abs().max() <= bound
