"""The set-up script, without the minutes of installing: what is made when, and what is refused."""

import subprocess

import pytest

from scripts import setup_environment


@pytest.fixture
def built(tmp_path, monkeypatch):
    """The folders that were built, with a build that only leaves what a real one leaves."""
    folders = []

    def build(folder, host):
        folders.append(folder)
        (folder / "venv" / "bin").mkdir(parents=True, exist_ok=True)
        (folder / "venv" / "bin" / "python").touch()
        (folder / "complete").touch()

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    monkeypatch.setattr(setup_environment, "build", build)
    return folders


def make_host(folder, requirements="torch\ntorchaudio\nnumpy>=1.25.0\n\n#optional:\nspandrel  # upscalers\n"):
    folder.mkdir()
    (folder / "main.py").touch()
    (folder / "requirements.txt").write_text(requirements)
    return folder


def test_made_once_and_outside_the_checkout(built, tmp_path):
    python, host = setup_environment.environment()
    assert setup_environment.environment() == (python, host)
    assert len(built) == 1
    assert python.is_relative_to(tmp_path / "cache" / "comfyui-video2lora")
    assert host.parent == built[0]


def test_half_made_is_made_again(built):
    python, _ = setup_environment.environment()
    (built[0] / "complete").unlink()
    setup_environment.environment()
    python.unlink()
    setup_environment.environment()
    assert built == [built[0]] * 3


def test_other_requirements_get_another_environment(built, tmp_path, monkeypatch):
    setup_environment.environment()
    changed = tmp_path / "requirements.txt"
    changed.write_text("einops\n")
    monkeypatch.setattr(setup_environment, "REQUIREMENT_FILES", (changed,))
    setup_environment.environment()
    assert built[0] != built[1]


def test_host_of_the_user(built, tmp_path, monkeypatch):
    own = make_host(tmp_path / "ComfyUI")
    monkeypatch.setenv("COMFYUI_PATH", str(own))
    assert setup_environment.environment()[1] == own
    assert setup_environment.host_requirements(own) == ["torch", "numpy>=1.25.0", "spandrel", "requests"]


def test_a_tested_version_is_fetched_by_its_tag_once(built, tmp_path, monkeypatch):
    repository = make_host(tmp_path / "repository")
    git = ["git", "-C", str(repository), "-c", "user.name=x", "-c", "user.email=x@y"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "release"], ["tag", "v0.18.2"]):
        subprocess.run([*git, *command], check=True)
    (repository / "main.py").write_text("newer")
    subprocess.run([*git, "commit", "-qam", "newer"], check=True)
    monkeypatch.setattr(setup_environment, "HOST_REPOSITORY", repository.as_uri())
    monkeypatch.setenv("COMFYUI_PATH", "0.18.2")
    _, host = setup_environment.environment()
    assert host.is_relative_to(tmp_path / "cache") and (host / "main.py").read_text() == ""
    monkeypatch.setattr(setup_environment, "HOST_REPOSITORY", "nowhere")
    assert setup_environment.environment()[1] == host


def test_the_default_version_is_the_default_host(built, monkeypatch):
    default = setup_environment.environment()
    monkeypatch.setenv("COMFYUI_PATH", setup_environment.DEFAULT_HOST)
    assert setup_environment.environment() == default


def test_wrong_host_is_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    assert setup_environment.main([]) == 1
    answer = capsys.readouterr()
    assert "holds no main.py" in answer.err and not answer.out


@pytest.mark.parametrize("git", [True, False])
def test_a_version_that_cannot_be_fetched_is_one_sentence(tmp_path, monkeypatch, capfd, git):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("COMFYUI_PATH", "0.18.2")
    monkeypatch.setattr(setup_environment, "HOST_REPOSITORY", (tmp_path / "nothing").as_uri())
    monkeypatch.setattr(setup_environment.time, "sleep", lambda _: None)
    if not git:
        monkeypatch.setenv("PATH", str(tmp_path))
    assert setup_environment.main([]) == 1
    answer = capfd.readouterr()
    assert "v0.18.2.zip and say HOST=" in answer.err.splitlines()[-1] and not answer.out


def test_only_the_interpreter_is_printed(built, capsys):
    assert setup_environment.main([]) == 0
    assert capsys.readouterr().out == f"{built[0] / 'venv' / 'bin' / 'python'}\n"


def test_users_requirements_never_name_torch():
    lines = (setup_environment.CHECKOUT / "requirements.txt").read_text().splitlines()
    assert not [line for line in lines if line.startswith("torch")]
