"""What a command says where a package is missing."""

import command_line
import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("package", "command"),
    [
        ("tyro", "models"),
        ("flax", "table1"),
        ("matplotlib", "figure3 --results-dir={tmp}"),
        ("tensorflow_datasets", "figure1 --dataset=mnist --data-dir={sets}"),
    ],
)
def test_a_missing_package(package, command, prepared_fake, tmp_path):
    arguments = command.format(sets=prepared_fake, tmp=tmp_path).split()
    if "figure1" in arguments:
        arguments += [f"--cache-dir={tmp_path}", f"--results-dir={tmp_path}"]
    done = command_line.run(f"import sys; sys.modules['{package}'] = None", *arguments)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert f"has no {package}" in line
    assert "absum-jax[experiments]" in line
