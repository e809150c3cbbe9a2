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

"""Entry point of `cgdet` and `python -m cgdet_core`; modules may be missing on a robot."""

import sys


def main() -> None:
    """Run the command line; exit with one sentence if a module is missing or broken."""
    try:
        from cgdet_core.cli import main as run
    except ImportError as error:
        sentence = explain(error)
        if not sentence:
            raise
        sys.exit(f'cgdet: {sentence}')
    except KeyboardInterrupt:
        print('cgdet: interrupted.', file=sys.stderr)
        sys.exit(130)
    run()


def explain(error: ImportError) -> str:
    """Return what to install, or an empty string if that would not help."""
    module = (error.name or '').partition('.')[0]
    if module in ('rich', 'typer'):
        return (f'The module {module} is missing; install what cgdet needs with '
                '"pip install rich typer rosbags".')
    if module.startswith('cgdet_'):
        return ''
    from cgdet_core.doctor.machine import versions  # needs only the standard library

    return '\n'.join(f'{check.name}: {check.found}; {check.advice}.'
                     for check in versions() if check.level == 'FAIL')


if __name__ == '__main__':
    main()
