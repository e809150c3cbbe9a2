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

"""Check a machine: Python modules, GPU, backends, and ROS if it is installed."""

from collections.abc import Iterator
from dataclasses import replace
import importlib.util
import json
from pathlib import Path
import subprocess
import sys
import tempfile

from cgdet_core.doctor import Check
from cgdet_core.processes import program

PROBE_TIMEOUT_S = 60.0
# Run in separate processes: a module built for another numpy may abort or print pages.
OPENCV = ('import numpy, cv2; cv2.resize(numpy.zeros((4, 4), numpy.uint16), (2, 2)); '
          'print(cv2.__version__, "with numpy", numpy.__version__)')
ONNXRUNTIME = ('import onnxruntime as o; print(o.__version__, "with", ", ".join('
               'p.removesuffix("ExecutionProvider") for p in o.get_available_providers()))')
# Through our session, as OpenVINO by itself may report its import over the network.
OPENVINO = ('from cgdet_core.runtime.inference.openvino import load_openvino; '
            'o = load_openvino(); print(o.__version__.partition("-")[0], "with", '
            '", ".join(o.Core().available_devices))')
NVIDIA = ('/proc/driver/nvidia/version', '/etc/nv_tegra_release', '/dev/nvidiactl')


def checks(model: Path | None, seconds: float) -> Iterator[Check]:
    """
    Check versions, GPU, model and, if ROS is installed, transport and graph.

    model: by default the shipped one. seconds: duration of sending and listening.
    """
    sound = True
    for check in versions():
        sound &= check.level != 'FAIL'
        yield check
    if sound:
        yield from accelerators()
        from cgdet_core.doctor.model import model_checks
        from cgdet_core.runtime.files import share_file, SHIPPED_MODEL

        yield from model_checks(model or share_file(SHIPPED_MODEL))
    else:
        yield Check('model', 'inference', 'FAIL', 'not checked, as modules above are missing')
    if importlib.util.find_spec('rclpy') is None:
        yield Check('ROS 2', 'rclpy', 'WARN', 'not found; transport and graph were not checked',
                    'source a ROS 2 distribution or .venv/bin/ros_env.sh')
        return
    yield from _ros_checks('--seconds', str(seconds))


def _ros_checks(*options: str) -> Iterator[Check]:
    """Run the checks that need ROS as a program, as cgdet_core never imports ROS."""
    with tempfile.TemporaryFile('w+', errors='replace') as errors:
        with program('cgdet_ros.doctor.checks', *options, stdout=subprocess.PIPE, stderr=errors,
                     text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith('{'):  # ROS itself may print lines
                    yield Check(**json.loads(line))
            status = process.wait()
        errors.seek(0)
        lines = errors.read().strip().splitlines()
    if status:
        yield Check('ROS 2', 'checks', 'FAIL', lines[-1] if lines else f'exit status {status}',
                    'run "python -m cgdet_ros.doctor.checks" to see why')


def versions() -> list[Check]:
    """Check Python, the modules that every backend needs, and OpenVINO."""
    return [
        Check('versions', 'Python', 'OK', '.'.join(map(str, sys.version_info[:3]))),
        module('OpenCV', OPENCV, "install one built for this numpy: a distribution's OpenCV "
               'requires "pip install \'numpy<2\'", numpy 2 requires "pip install '
               'opencv-python-headless"'),
        module('ONNX Runtime', ONNXRUNTIME, 'install it with "pip install onnxruntime"'),
        openvino()]


def openvino() -> Check:
    """Check OpenVINO, which is optional: a broken one is a warning."""
    if importlib.util.find_spec('openvino') is None:
        return Check('versions', 'OpenVINO', 'OK', 'not installed, and optional')
    found = module('OpenVINO', OPENVINO, 'install it again with "pip install openvino"')
    return replace(found, level='WARN') if found.level == 'FAIL' else found


def module(name: str, code: str, advice: str) -> Check:
    """Check a module by running code that prints its version in a separate interpreter."""
    try:
        done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True,
                              errors='replace', timeout=PROBE_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return Check('versions', name, 'FAIL', f'no answer within {PROBE_TIMEOUT_S:.0f} s', advice)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f'exit status {done.returncode}']
        return Check('versions', name, 'FAIL', lines[-1], advice)
    return Check('versions', name, 'OK', done.stdout.strip().splitlines()[-1])


def accelerators() -> list[Check]:
    """Check each TensorRT (missing: a warning if there is a driver), and what "auto" would use."""
    from cgdet_core.runtime.tensorrt.building import FLAVORS, Unavailable
    from cgdet_core.runtime.tensorrt.session import check_device

    driver = nvidia_driver()
    checks, usable = [], ''
    for flavor, title in FLAVORS.items():
        try:
            tensorrt, _, gpu = check_device(flavor)
        except Unavailable as error:
            advice = str(error).removeprefix(error.why).strip('; ')
            worse = driver and not usable
            checks.append(Check('GPU', title, 'WARN' if worse else 'OK', error.why,
                                advice if worse else ''))
            continue
        usable = usable or tensorrt.title
        checks.append(Check('GPU', title, 'OK',
                            f'{tensorrt.version} on {gpu.name} ({gpu.target})'))
    on_cpu = ('the faster of ONNX Runtime and OpenVINO' if importlib.util.find_spec('openvino')
              else 'ONNX Runtime')
    return [Check('GPU', 'NVIDIA driver', 'OK', driver or 'none'), *checks,
            Check('GPU', 'backend auto', 'OK', f'uses {usable or on_cpu}')]


def nvidia_driver() -> str:
    """Return the name of the loaded NVIDIA driver, or an empty string."""
    for path in map(Path, NVIDIA):
        if path.exists():
            try:
                return path.read_text().splitlines()[0] if path.is_file() else str(path)
            except (OSError, IndexError):
                return str(path)
    return ''
