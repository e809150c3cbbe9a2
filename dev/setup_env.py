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
Create the environment .venv in the root of the repository.

With --runtime: what the node and the demo need. Otherwise also PyTorch and the rest that training
and the tests need, in addition to it. Runs with the system Python and its standard library only;
once set up, it only compares a stamp. If a ROS 2 distribution is sourced, the environment uses it.
Otherwise ROS 2 is installed from PyPI, and the message packages in dev are generated.
"""

import sys

if not (3, 10) <= sys.version_info[:2] <= (3, 13):  # before syntax that older ones do not support
    sys.exit('setup: Python 3.10, 3.11, 3.12 or 3.13 is required, {} is {}.{}; set another one '
             'with "make PYTHON=python3.12 ...".'.format(sys.executable, *sys.version_info[:2]))

from collections.abc import Iterator
from contextlib import contextmanager, suppress
import fcntl
import hashlib
import importlib.util
import json
import os
from pathlib import Path
import re
import select
import shutil
import subprocess
import tempfile
import time

ROOT = Path(__file__).resolve().parent.parent
DEV = ROOT / 'dev'
LOCKS = DEV / 'locks'  # by dev/lock.py: the version and the hashes of every package
VENV = ROOT / '.venv'
PYTHON = VENV / 'bin' / 'python'
LOG = VENV / 'setup.log'
RUNTIME, FULL = 'runtime', 'setup'  # levels of the environment, each with a stamp in .venv
# The message packages to generate, by level; Foxglove's overlay and nav2's bond are optional.
MESSAGES = {RUNTIME: [DEV / 'vision_msgs'], FULL: [DEV / 'foxglove_msgs', DEV / 'bond']}
UV = 'uv==0.13.8'
WHEEL_PREFIX = re.compile(rb'/opt/python/cp3\d+-cp3\d+t?')  # of the machine that built the wheels
LOG_TAIL = 15
UV_LINES = [['Downloading'], ['Building'], ['Installed']]  # first words of lines to show


class SetupError(Exception):
    """An error that the user can fix; the message is one sentence that states how."""


def main() -> int:
    """Update the environment; return 0, or 1 after printing one sentence if that failed."""
    started = time.monotonic()
    levels = [RUNTIME] if '--runtime' in sys.argv[1:] else [RUNTIME, FULL]
    try:
        with _lock():
            distribution = sourced_distribution()
            wanted = {level: stamp(level, distribution) for level in levels}
            if all(map(is_current, wanted, wanted.values())):
                return 0
            print(f'Setting up .venv with Python {sys.version.split()[0]} and ROS 2 '
                  f'{distribution or "from PyPI"}; details are in .venv/{LOG.name}', flush=True)
            for level, value in wanted.items():
                if not is_current(level, value):
                    set_up(level, distribution)
                    _stamp_file(level).write_text(value)
    except SetupError as error:
        _explain(str(error))
        return 1
    except KeyboardInterrupt:
        print('\nsetup: interrupted; run the same command again to continue.', file=sys.stderr)
        return 130
    print(f'.venv is ready: {time.monotonic() - started:.1f} s', flush=True)
    return 0


def set_up(level: str, distribution: str | None) -> None:
    """Run all steps of a level; each can be repeated, also after an interruption."""
    _stamp_file(level).unlink(missing_ok=True)
    if level == RUNTIME:
        with step('checking this machine'):
            check_machine(distribution)
        with step('creating the virtual environment'):
            create_venv(distribution)
    kind = 'distribution' if distribution else 'ros'
    what = {RUNTIME: 'ONNX Runtime, OpenCV, ROS 2',
            FULL: 'PyTorch and tools, several GB the first time'}[level]
    with step(f'installing {what}'):
        install('-r', str(LOCKS / f'{level}-{kind}.txt'))
    if level == FULL:
        with step('installing OpenVINO, and TensorRT-RTX, which builds engines without a GPU'):
            # Without dependencies: the type stubs require the full TensorRT, which has no wheel,
            # and OpenVINO its telemetry.
            install('--no-deps', '-r', str(LOCKS / 'no-deps.txt'))
            fix_tensorrt_stubs()
    for package in () if distribution else MESSAGES[level]:
        with step(f"generating {package.name}, comparing type hashes with the real package's"):
            generate(package)
            check_type_hashes(package)
    if level == RUNTIME:
        with step('installing cgdet_ros itself, editable'):
            install('--no-deps', '--no-build-isolation', '--editable', str(ROOT))
    write_ros_env(distribution)


def is_current(level: str, wanted: str) -> bool:
    """Return whether a level of the environment was set up from what it would be created from."""
    path = _stamp_file(level)
    return path.is_file() and path.read_text() == wanted


def sourced_distribution() -> str | None:
    """Return the name of the sourced ROS 2 distribution, or None."""
    if not (os.environ.get('ROS_DISTRO') and os.environ.get('AMENT_PREFIX_PATH')):
        return None
    if _origin('rclpy') is None:
        return None
    return os.environ['ROS_DISTRO']


def stamp(level: str, distribution: str | None) -> str:
    """Return a hash of everything that a level of the environment is created from."""
    names = [f'{level}-{"distribution" if distribution else "ros"}.txt']
    if level == FULL:
        names.append('no-deps.txt')
    files = [Path(__file__).resolve(), ROOT / 'setup.py', ROOT / 'setup.cfg',
             *(LOCKS / name for name in names),
             *(path for package in MESSAGES[level] for path in _files(package))]
    return _hash(files, ROOT, sys.version, sys.base_prefix, distribution)


def check_machine(distribution: str | None) -> None:
    """Raise SetupError for what is missing, before anything is downloaded."""
    if importlib.util.find_spec('ensurepip') is None:
        version = '{}.{}'.format(*sys.version_info[:2])
        raise SetupError(f'The venv module of Python {version} is missing; install it with '
                         f'"apt install python{version}-venv".')
    if distribution:
        if _origin('vision_msgs') is None:
            raise SetupError(f'vision_msgs of ROS 2 {distribution} is missing; install it with '
                             f'"apt install ros-{distribution}-vision-msgs".')
        if sys.version_info >= (3, 13):
            raise SetupError('With a ROS 2 distribution Python 3.10, 3.11 or 3.12 is required; '
                             'set that of ROS with "make PYTHON=/usr/bin/python3 ...".')
        return
    missing = [p for p in ('g++', 'cmake', 'make') if shutil.which(p) is None]
    if missing:
        raise SetupError(f'Generating messages requires {" and ".join(missing)}; install with '
                         f'"apt install {" ".join(missing)}".')


def create_venv(distribution: str | None) -> None:
    """Create .venv, unless an earlier setup created it with the same Python."""
    if VENV.exists() and not _reusable(distribution):
        shutil.rmtree(VENV)
    VENV.mkdir(exist_ok=True)
    LOG.write_text('')
    if not PYTHON.exists():
        options = ['--system-site-packages'] if distribution else []
        run([sys.executable, '-m', 'venv', *options, str(VENV)],
            'The virtual environment could not be created')


def install(*arguments: str) -> None:
    """Install with uv, which is several times as fast as pip; with pip if uv fails."""
    uv = VENV / 'bin' / 'uv'
    with suppress(SetupError):
        if not uv.exists():
            run([str(PYTHON), '-m', 'pip', 'install', '-q', '-r', str(LOCKS / 'uv.txt')],
                'uv could not be installed')
        # uv does not read pip's configuration, which may name a private index. Without the
        # option, bytecode is compiled at import, with PYTHONDONTWRITEBYTECODE at every one.
        return run([str(uv), 'pip', 'install', '--python', str(PYTHON), '--compile-bytecode',
                    *arguments], 'uv could not install the packages')
    run([str(PYTHON), '-m', 'pip', 'install', *arguments],
        'The packages could not be installed; is the network available?')


def generate(package: Path) -> None:
    """Generate and install a message package with the wheels' rosidl, unless it is up to date."""
    mark = VENV / 'share' / package.name / 'source.hash'
    wanted = _hash([DEV / 'requirements-ros.txt', *_files(package)])
    if mark.is_file() and mark.read_text() == wanted:
        return
    rewrite_cmake_exports()
    environment = {'AMENT_PREFIX_PATH': str(VENV), '_ROS_WHEELS_BOOTSTRAP_COMPLETE': '1',
                   'LD_LIBRARY_PATH': os.pathsep.join(ros_libraries())}
    with tempfile.TemporaryDirectory(prefix=f'{package.name}_') as build:
        for command in (
            ['cmake', '-S', str(package), '-B', build, f'-DCMAKE_PREFIX_PATH={VENV}',
             f'-DCMAKE_INSTALL_PREFIX={VENV}', f'-DPython3_EXECUTABLE={PYTHON}',
             '-DPython3_FIND_VIRTUALENV=ONLY', '-DBUILD_TESTING=OFF'],
            ['cmake', '--build', build, f'-j{len(os.sched_getaffinity(0))}'],
            ['cmake', '--install', build],
        ):
            run(command, f'{package.name} could not be generated', environment)
    mark.write_text(wanted)


def rewrite_cmake_exports() -> None:
    """Set this environment in the wheels' CMake exports instead of the prefix of their builder."""
    # The exports also name the folder of Python's headers, which venv creates only since 3.11.
    (VENV / 'include' / 'python{}.{}'.format(*sys.version_info[:2])).mkdir(exist_ok=True)
    for path in (VENV / 'share').rglob('*.cmake'):
        old = path.read_bytes()
        new = WHEEL_PREFIX.sub(str(VENV).encode(), old)
        if new != old:
            path.unlink()  # it may be a hard link to uv's cache, which must not change
            path.write_bytes(new)


def fix_tensorrt_stubs() -> None:
    """Fix the syntax of TensorRT's type stubs: a parameter named `in` and a missing default."""
    for path in VENV.glob('lib/python3*/site-packages/tensorrt_bindings/tensorrt.pyi'):
        old = path.read_text()
        new = re.sub(r'\bin: list', 'in_: list', old)
        new = new.replace('channel_axis: int) -> IScaleLayer',
                          'channel_axis: int = 0) -> IScaleLayer')
        if new != old:
            path.unlink()  # as above
            path.write_text(new)


def check_type_hashes(package: Path) -> None:
    """Compare the generated type hashes with the real package's; DDS matches topics by them."""
    for name, expected in json.loads((package / 'type_hashes.json').read_text()).items():
        path = VENV / 'share' / f'{name}.json'
        if not path.is_file():
            raise SetupError(f'{name} was not generated; remove .venv and try again.')
        hashes = {t['type_name']: t['hash_string']
                  for t in json.loads(path.read_text())['type_hashes']}
        if hashes[name] != expected:
            raise SetupError(f'{name} has the type hash {hashes[name]}, the real package has '
                             f'{expected}; correct {package.relative_to(ROOT)}.')


def ros_libraries() -> list[str]:
    """Return the folders of the wheels' shared libraries."""
    bundled = VENV.glob('lib/python3*/site-packages/ros_*.libs')
    return [str(VENV / 'lib'), *sorted(str(folder) for folder in bundled)]


def write_ros_env(distribution: str | None) -> None:
    """Write the file that a shell sources, so that `import rclpy` need not restart Python."""
    lines = ['# Written by dev/setup_env.py; source it to use this environment.',
             f'export PATH="{VENV}/bin:$PATH"']
    if not distribution:
        libraries = os.pathsep.join(ros_libraries())
        lines += [
            f'export LD_LIBRARY_PATH="{libraries}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"',
            f'export AMENT_PREFIX_PATH="{VENV}${{AMENT_PREFIX_PATH:+:$AMENT_PREFIX_PATH}}"',
            'export _ROS_WHEELS_BOOTSTRAP_COMPLETE=1',
        ]
    (VENV / 'bin' / 'ros_env.sh').write_text('\n'.join(lines) + '\n')


@contextmanager
def step(what: str) -> Iterator[None]:
    """Print a step, what it is doing meanwhile, and after it the seconds that it took."""
    started = time.monotonic()
    _say(f'  {what} ...', lasting=not sys.stdout.isatty())
    yield
    _say(f'  {what}: {time.monotonic() - started:.1f} s', lasting=True)


def run(command: list[str], failure: str, environment: dict[str, str] | None = None) -> None:
    """
    Run a command with its output in the log; raise SetupError(failure) if it fails.

    Its newest line is shown in a terminal; elsewhere each line about downloads is.
    """
    inherited = {k: v for k, v in os.environ.items()
                 if k not in ('PYTHONPATH', 'PYTHONHOME', 'VIRTUAL_ENV')}
    inherited['PATH'] = f'{VENV / "bin"}{os.pathsep}{os.environ.get("PATH", os.defpath)}'
    with LOG.open('a') as log:
        print(f'\n$ {" ".join(command)}', file=log, flush=True)
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, env={**inherited, **(environment or {})}, cwd=ROOT)
        except OSError as error:
            raise SetupError(f'{failure}: {error}.') from None
        with process:
            for line in _lines(process):
                print(line, file=log, flush=True)
                if not sys.stdout.isatty() and line.split()[:1] in UV_LINES:
                    _say(f'    {line.strip()}', lasting=True)
    if process.returncode:
        raise SetupError(failure if failure.endswith('?') else f'{failure}.')


def _lines(process: subprocess.Popen[bytes]) -> Iterator[str]:
    """Yield the lines of a process; in a terminal, show the newest and the seconds."""
    started, rest, newest = time.monotonic(), b'', ''
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    while True:
        if select.select([descriptor], [], [], 1.0)[0]:
            data = os.read(descriptor, 1 << 16)
            *lines, rest = (rest + data).split(b'\n')
            for line in [*lines, rest] if not data and rest else lines:
                newest = line.decode(errors='replace').rstrip()
                yield newest
            if not data:
                return
        if sys.stdout.isatty():
            _say(f'    {time.monotonic() - started:.0f} s  {newest.strip()}', lasting=False)


def _say(text: str, lasting: bool) -> None:
    """Print a line; in a terminal over the one before it, which did not last."""
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns - 1
        text = '\r\x1b[K' + (text if lasting else text[:width])
    print(text, end='\n' if lasting else '', flush=True)


@contextmanager
def _lock() -> Iterator[None]:
    """Hold a lock, so that two calls of make do not set up at the same time."""
    descriptor = os.open(DEV, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _stamp_file(level: str) -> Path:
    return VENV / f'{level}.stamp'


def _reusable(distribution: str | None) -> bool:
    """Return whether .venv was created by this Python, here, and for the same kind of ROS."""
    config, script = VENV / 'pyvenv.cfg', VENV / 'bin' / 'pip'
    if not (config.is_file() and script.is_file() and PYTHON.exists()):
        return False
    settings = dict(line.split(' = ', 1) for line in config.read_text().splitlines()
                    if ' = ' in line)
    here = f'#!{VENV}/'.encode()
    return (settings.get('version') == sys.version.split()[0]
            and settings.get('include-system-site-packages') == str(bool(distribution)).lower()
            and script.read_bytes().startswith(here))


def _origin(module: str) -> str | None:
    """Return the file of a module of the system's Python, None if it is missing or in .venv."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None or Path(spec.origin).is_relative_to(VENV):
        return None
    return spec.origin


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob('*') if p.is_file())


def _hash(files: list[Path], *values: object) -> str:
    digest = hashlib.sha256(repr([str(v) for v in values]).encode())
    for path in files:
        digest.update(f'\0{path.relative_to(ROOT)}\0'.encode() + path.read_bytes())
    return digest.hexdigest()


def _explain(message: str) -> None:
    """Print the end of the log, if there is one, and the error message."""
    print(file=sys.stderr)
    if LOG.is_file():
        tail = LOG.read_text(errors='replace').rstrip().splitlines()[-LOG_TAIL:]
        print(*(f'  | {line}' for line in tail), sep='\n', file=sys.stderr)
    print(f'setup: {message} (log: .venv/{LOG.name})' if LOG.is_file()
          else f'setup: {message}', file=sys.stderr)


if __name__ == '__main__':
    sys.exit(main())
