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

"""A headless Chromium that tests drive over a pipe, with the DevTools protocol."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
import fcntl
import json
import os
from pathlib import Path
import shutil
import subprocess
import sys
import tempfile
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, (
    'chromium', 'chromium-browser', 'chromium-headless-shell', 'google-chrome', 'chrome'))), None)

WIRE = ('import os, sys; a, b, *program = sys.argv[1:]; os.dup2(int(a), 3); os.dup2(int(b), 4); '
        'os.execv(program[0], program)')


class Browser:
    """An open page."""

    def __init__(self, to: Any, back: Any) -> None:
        self._to, self._back, self._number = to, back, 0
        self.events: list[dict[str, Any]] = []
        self._partial: list[bytes] = []
        self._whole: deque[bytes] = deque()
        self._session: dict[str, str] = {}
        target = self.call('Target.createTarget', url='about:blank')['targetId']
        session = self.call('Target.attachToTarget', targetId=target, flatten=True)['sessionId']
        self._session = {'sessionId': session}
        for domain in ('Page', 'Runtime', 'Network'):
            self.call(f'{domain}.enable')

    def call(self, method: str, **parameters: Any) -> Any:
        """Call a method of the protocol and return its result; events are collected."""
        self._number += 1
        self._to.write(json.dumps({'id': self._number, 'method': method, 'params': parameters,
                                   **self._session}).encode() + b'\0')
        self._to.flush()
        while True:
            message = self._receive()
            if message.get('id') == self._number:
                assert 'error' not in message, message
                return message['result']
            self.events.append(message)

    def open(self, url: str) -> None:
        """Open a page and wait until it is loaded."""
        self.events.clear()
        self.call('Page.navigate', url=url)
        while not any(e.get('method') == 'Page.loadEventFired' for e in self.events):
            self.events.append(self._receive())

    def run(self, script: str) -> Any:
        """Return the value of an expression in the page."""
        result = self.call('Runtime.evaluate', expression=script, returnByValue=True,
                           awaitPromise=True, userGesture=True)
        assert 'exceptionDetails' not in result, result
        return result['result'].get('value')

    def mouse(self, kind: str, x: float, y: float) -> None:
        """Send a mouse event: Pressed, Moved or Released, with the left button."""
        self.call('Input.dispatchMouseEvent', type=f'mouse{kind}', x=x, y=y, button='left',
                  buttons=int(kind != 'Released'), clickCount=1)

    def key(self, name: str) -> None:
        """Press and release a key."""
        code = {'ArrowLeft': 37, 'ArrowRight': 39, 'Escape': 27, 'Enter': 13}[name]
        for kind in ('keyDown', 'keyUp'):
            text = {'text': '\r'} if (name, kind) == ('Enter', 'keyDown') else {}
            self.call('Input.dispatchKeyEvent', type=kind, key=name, code=name,
                      windowsVirtualKeyCode=code, **text)

    def _receive(self) -> dict[str, Any]:
        while not self._whole:
            part = self._back.read1()
            assert part, 'Chromium ended'
            first, *rest = part.split(b'\0')
            self._partial.append(first)
            for following in rest:
                self._whole.append(b''.join(self._partial))
                self._partial = [following]
        message: dict[str, Any] = json.loads(self._whole.popleft())
        return message


@contextmanager
def browser(chromium: str, width: int = 1280, height: int = 900) -> Iterator[Browser]:
    """Start Chromium; its commands arrive at file descriptor 3, its answers leave at 4."""
    down, up = os.pipe(), os.pipe()
    # Above 4, so that one does not replace the other when they get their numbers.
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (down[0], up[1])]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            [sys.executable, '-c', WIRE, *map(str, ends), chromium, '--headless',
             '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run',
             '--hide-scrollbars', '--remote-debugging-pipe', f'--user-data-dir={folder}',
             f'--window-size={width},{height}'],
            pass_fds=ends, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, 'HOME': folder})
        for end in (down[0], up[1], *ends):
            os.close(end)
        with os.fdopen(down[1], 'wb') as to, os.fdopen(up[0], 'rb') as back:
            try:
                page = Browser(to, back)
                page.call('Emulation.setDeviceMetricsOverride', width=width, height=height,
                          deviceScaleFactor=1, mobile=width < 600)
                yield page
            finally:
                process.kill()
                process.wait()


def url_of(path: Path, fragment: str = '') -> str:
    return path.resolve().as_uri() + (f'#{fragment}' if fragment else '')
