# Copyright 2026 cgdet_ros maintainers
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""
Write dev/locks: every package that dev/requirements*.txt bring, with the hashes of its files.

Run `.venv/bin/python dev/lock.py [--upgrade]` after a change of a requirement; needs the network.
Versions that are locked stay, unless a requirement excludes them or --upgrade is given.
dev/setup_env.py installs what is locked, and nothing whose hash differs.
"""

from pathlib import Path
import subprocess
import sys
import tempfile

from setup_env import DEV, FULL, LOCKS, RUNTIME, UV

VENV_UV = Path(sys.executable).parent / 'uv'
OPTIONS = ['--universal', '--python-version', '3.10', '--generate-hashes', '--no-header',
           '--no-annotate', '--no-emit-index-url', '--no-emit-find-links', '--quiet']
HEAD = '# Written by dev/lock.py.\n'


def compile_lock(name: str, sources: list[Path], *options: str) -> None:
    """Resolve requirements for all Pythons and machines, and write dev/locks/<name>.txt."""
    path = LOCKS / f'{name}.txt'
    subprocess.run([str(VENV_UV), 'pip', 'compile', *OPTIONS, *options, *map(str, sources),
                    '--output-file', str(path)], check=True, cwd=DEV)
    path.write_text(HEAD + path.read_text().removeprefix(HEAD))
    print(f'{path.relative_to(DEV.parent)}: {path.read_text().count("==")} packages')


def main(options: list[str]) -> None:
    """Write all locks; options are uv's."""
    LOCKS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        # No distribution has a later Python, for which some of these pins have no release.
        pins = [line for line in (DEV / 'requirements-distribution.txt').read_text().splitlines()
                if not line.startswith('#')]
        part = Path(folder) / 'distribution.txt'
        part.write_text(''.join(
            f"{pin}; python_version < '3.13'\n{pin.partition('==')[0]}; python_version >= '3.13'\n"
            for pin in pins))
        for kind, more in (('ros', DEV / 'requirements-ros.txt'), ('distribution', part)):
            whole = LOCKS / f'{FULL}-{kind}.txt'
            compile_lock(whole.stem, [DEV / 'requirements.txt', more], *options)
            # The part of it that the node and the demo need.
            compile_lock(f'{RUNTIME}-{kind}', [DEV / 'requirements-runtime.txt', more],
                         '--constraints', str(whole))
        compile_lock('docker', [DEV.parent / 'docker' / 'requirements.txt'],
                     '--constraints', str(LOCKS / f'{RUNTIME}-distribution.txt'))
        compile_lock('no-deps', [DEV / 'requirements-no-deps.txt'], '--no-deps', *options)
        part = Path(folder) / 'uv.txt'
        part.write_text(UV)
        compile_lock('uv', [part], *options)


if __name__ == '__main__':
    main(sys.argv[1:])
