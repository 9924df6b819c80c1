"""Importing overtone is cheap, and timm knows our architectures whichever of the two is imported first."""

import subprocess
import sys

import pytest


def python(script: str) -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_is_cheap():
    python(
        "import sys, overtone\n"
        "heavy = {'torch', 'timm', 'numpy', 'tyro', 'rich', 'PIL', 'safetensors'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert {'create_model', 'list_models', 'load_recipe', '__version__'} <= set(dir(overtone))\n"
        "assert overtone.load_recipe('digits').train.epochs > 0\n"
        "assert 'torch' not in sys.modules\n"
        "try: overtone.nothing\n"
        "except AttributeError: pass\n"
        "else: raise SystemExit('no AttributeError')\n"
    )


@pytest.mark.slow
def test_overtone_before_timm_in_several_threads():
    python(
        "import importlib, importlib.util, sys, threading\n"
        "import overtone\n"
        "before = importlib.util.find_spec('timm').loader.get_filename('timm')\n"
        "found = []\n"
        "def use():\n"
        "    import timm\n"
        "    found.append(timm.create_model('hbonet_x010', num_classes=2))\n"
        "threads = [threading.Thread(target=use) for _ in range(4)]\n"
        "[thread.start() for thread in threads]\n"
        "[thread.join() for thread in threads]\n"
        "assert len(found) == 4\n"
        "import timm\n"
        "assert timm.__file__ == before\n"
        "homes = {type(loader).__module__ for loader in (timm.__loader__, timm.__spec__.loader)}\n"
        "assert homes == {'_frozen_importlib_external'}, homes\n"
        "assert not [f for f in sys.meta_path if type(f).__module__.startswith('overtone')]\n"
        "assert importlib.reload(timm).is_model('hornet_tiny_gf')\n"
    )


@pytest.mark.slow
def test_timm_before_overtone_and_in_a_new_process(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing, timm, overtone\n"
        "import torch\n"
        "def outputs(model):\n"
        "    return model(torch.ones(1, 3, 32, 32)).shape[1]\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        assert pool.map(outputs, [timm.create_model('harm_wrn16_4', num_classes=7).eval()]) == [7]\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_without_timm():
    for absence in (
        "sys.modules['timm'] = None\n",
        "import importlib.machinery as m\n"
        "find = m.PathFinder.find_spec\n"
        "m.PathFinder.find_spec = lambda name, *rest: None if name == 'timm' else find(name, *rest)\n",
    ):
        python(
            f"import sys\n{absence}"
            "import overtone\n"
            "assert overtone.load_recipe('scratch').model.name\n"
            "try: import timm\n"
            "except ModuleNotFoundError as error: assert error.name == 'timm'\n"
            "else: raise SystemExit('timm is there')\n"
        )
