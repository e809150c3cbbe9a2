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

"""Sources as a person names them, with a real server for those on the web."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import create_server
from threading import Event, Thread

from cgdet_core.data import streams
from cgdet_core.data.inputs import find_sources
from cgdet_core.data.sources import read_frames
from cgdet_core.data.video import open_video
from cgdet_core.errors import UserError
import cv2
import numpy as np
import pytest


@pytest.fixture()
def images(tmp_path: Path) -> Path:
    """Return a folder with three gray images of one level each, and one in color."""
    for i in range(3):
        cv2.imwrite(str(tmp_path / f'{i}.png'), np.full((60, 80), 10 * i, np.uint8))
    color = np.zeros((60, 80, 3), np.uint8)
    color[:20] = (0, 0, 255)
    cv2.imwrite(str(tmp_path / 'photo.png'), color)
    return tmp_path


def write_video(path: Path, levels: range) -> None:
    with open_video(path, 10) as write:
        for level in levels:
            write(np.full((60, 80, 3), level, np.uint8))


class Handler(BaseHTTPRequestHandler):
    """Serve an image, a stream that ends when the test says so, and a page."""

    end, gone = Event(), Event()  # the test wants it to end; the reader has gone
    elsewhere = ''
    logins: list[str | None] = []  # of requests that were sent elsewhere

    def do_GET(self) -> None:  # noqa: N802
        good, encoded = cv2.imencode('.png', np.full((60, 80), 70, np.uint8))
        assert good
        if self.path == '/private/a.png' and 'Authorization' not in self.headers:
            self.send_error(401)
        elif self.path == '/moved/a.png':
            self.send_response(302)
            self.send_header('Location', f'{self.elsewhere}/public/a.png')
            self.end_headers()
        elif self.path == '/broken/a.png':
            self.send_response(200)
            self.send_header('Content-Type', 'image/png')
            self.send_header('Content-Length', '1000')
            self.end_headers()
        elif self.path.endswith(('a.png', 'snapshot')):
            if self.path.startswith('/public'):
                self.logins.append(self.headers['Authorization'])
            self.answer('image/png', encoded.tobytes())
        elif self.path == '/page.png':
            self.answer('text/html', b'<html>')
        elif self.path == '/live':
            self.answer('multipart/x-mixed-replace; boundary=b', b'')
            jpeg = cv2.imencode('.jpg', np.full((64, 80, 3), 90, np.uint8))[1].tobytes()
            try:
                while not self.end.is_set():
                    self.wfile.write(b'--b\r\nContent-Type: image/jpeg\r\nContent-Length: '
                                     b'%d\r\n\r\n%b\r\n' % (len(jpeg), jpeg))
                    self.end.wait(0.01)
            except OSError:
                self.gone.set()
        else:
            self.send_error(404)

    def answer(self, kind: str, data: bytes) -> None:
        self.send_response(200)
        self.send_header('Content-Type', kind)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture()
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv('no_proxy', '*')  # other tests of this process may leave a proxy
    monkeypatch.setenv('NO_PROXY', '*')
    Handler.end.clear()
    Handler.gone.clear()
    Handler.logins.clear()
    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    Handler.elsewhere = f'http://localhost:{server.server_port}'
    yield f'http://127.0.0.1:{server.server_port}'
    Handler.end.set()
    server.shutdown()
    server.server_close()


def test_images_are_one_source_in_the_order_given(images: Path) -> None:
    write_video(images / 'clip.mp4', range(0, 50, 10))
    first, clip, last = find_sources(
        [f'{images}/2.png', f'{images}/[01].png', f'{images}/clip.mp4', '-'],
        [f'{images}/photo.png\n', '\n'])
    assert list(first.names) == ['2.png', '0.png', '1.png'] and first.total == 3
    assert [path.name for path in first.files] == list(first.names)
    assert [frame.pixels[0, 0] for frame in first.frames] == [20, 0, 10]
    assert (clip.name, clip.total, clip.rate) == ('clip', 5, 10.0) and not first.rate
    assert [frame.name for frame in clip.frames] == [f'clip_{i:06d}.png' for i in range(5)]
    assert list(last.names) == ['photo.png']


def test_a_list_of_windows_and_a_pattern_over_what_servers_add(images: Path) -> None:
    for folder in ('@eaDir', '__MACOSX'):
        (images / folder).mkdir()
        (images / folder / '0.png').write_bytes((images / '0.png').read_bytes())
    separated, = find_sources(['-'], [f'{images}/0.png\0{images}/2.png\0'])  # find -print0
    assert separated.names == [*map(str, ('0.png', '2.png'))]
    listed, = find_sources(['-'], [f'\ufeff{images}/0.png\r\n'])
    assert list(listed.names) == ['0.png']
    found, = find_sources([f'{images}/**/0.png'])
    assert list(found.names) == ['0.png']
    named, = find_sources([f'{images}/@eaDir/*.png'])
    assert list(named.names) == ['0.png']


def test_a_source_in_color_is_known_once_it_was_read(images: Path) -> None:
    write_video(images / 'gray.mp4', range(0, 50, 10))
    folder, video = find_sources([str(images), str(images / 'gray.mp4')])
    assert not folder.colors.found
    for frame in (*folder.frames, *video.frames):
        assert frame.pixels.ndim == 2
    assert folder.colors.found == str(images / 'photo.png') and not video.colors.found


def test_sequences_of_one_name_are_numbered(tmp_path: Path) -> None:
    for folder in ('a', 'b'):
        (tmp_path / folder).mkdir()
        write_video(tmp_path / folder / 'clip.mp4', range(0, 20, 10))
    found = find_sources([f'{tmp_path}/*/clip.mp4'])
    assert [source.name for source in found] == ['clip', 'clip_2']
    assert next(found[1].frames).name == 'clip_2_000000.png'


@pytest.mark.parametrize(('text', 'words'), [
    ('no*.png', r'No file matches .*no\*\.png'), ('-', 'no paths on standard input'),
    ('/dev/video99', 'There is no camera /dev/video99'),
    ('/dev/null', '/dev/null delivers no images'),
    ('ftp://me:secret@host/a.png', '^ftp://host/a.png has the scheme ftp'),
    ('http://me:secret@host:port/a.png', '^http://host:port/a.png is not a valid address'),
    ('http://me:se/secret@host/a.png', '^http://host/a.png is not a valid address'),
    ('rtsp://[::1/live', 'is not a valid address'),
    ('http://127.0.0.1:9/a.png', 'http://127.0.0.1:9/a.png cannot be reached: '),
    ('rtsp://me:secret@127.0.0.1:9/live', 'rtsp://127.0.0.1:9/live cannot be opened'),
    ('none.mp4', 'as it is empty'), ('short.mp4', 'has no frames'),
    ('m.onnx', 'is a model, not a source'),
    ('m.json', 'is the card of a model')])
def test_what_cannot_be_read_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    cv2.VideoWriter('none.mp4', cv2.VideoWriter.fourcc(*'mp4v'), 10, (80, 60)).release()
    (tmp_path / 'none.mp4').rename('short.mp4')
    for name in ('none.mp4', 'm.onnx', 'm.json'):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=words) as caught:
        find_sources([text])
    assert 'secret' not in str(caught.value)


def test_images_and_pages_on_the_web(web: str) -> None:
    sources = find_sources([f'{web}/a.png', f'{web}/snapshot'])
    for source, name in zip(sources, ('a.png', 'snapshot')):
        frame, = source.frames
        assert (frame.name, frame.pixels.shape, frame.pixels[0, 0]) == (name, (60, 80), 70)
    private, = find_sources([f'{web.replace("//", "//me:secret@")}/private/a.png'])
    assert next(private.frames).pixels[0, 0] == 70 and 'secret' not in private.where
    for path, words in (('missing.png', 'cannot be read: 404'), ('page.png', 'is a page'),
                        ('private/a.png', 'cannot be read: 401')):
        with pytest.raises(UserError, match=words):
            find_sources([f'{web}/{path}'])


def test_a_stream_gives_its_newest_frame_until_it_ends(web: str) -> None:
    source, = find_sources([f'{web}/live'])
    assert source.rate and source.total is None and source.name == 'live'
    stamps = []
    for frame in source.frames:
        assert abs(int(frame.pixels[0, 0]) - 90) < 3 and frame.stamp_ns is not None
        stamps.append(frame.stamp_ns)
        if len(stamps) == 3:
            Handler.end.set()
    assert len(stamps) >= 3 and stamps == sorted(stamps)


def test_a_password_stays_with_its_host(web: str) -> None:
    moved, = find_sources([f'{web.replace("//", "//me:secret@")}/moved/a.png'])
    assert next(moved.frames).pixels[0, 0] == 70 and Handler.logins == [None]


def test_addresses_with_spaces_and_servers_that_break_off(
    web: str, monkeypatch: pytest.MonkeyPatch,
) -> None:
    spaced, = find_sources([f'{web}/a folder/\u00fc a.png'])
    assert next(spaced.frames).pixels[0, 0] == 70
    with pytest.raises(UserError, match='broken/a.png cannot be read: IncompleteRead'):
        find_sources([f'{web}/broken/a.png'])
    with create_server(('127.0.0.1', 0)) as other:
        def greet() -> None:
            with other.accept()[0] as client:
                client.sendall(b'SSH-2.0\r\n')
                client.recv(4096)

        Thread(target=greet, daemon=True).start()
        with pytest.raises(UserError, match='cannot be read: .*SSH'):
            find_sources([f'http://127.0.0.1:{other.getsockname()[1]}/a.png'])
    monkeypatch.setattr(streams, 'LARGEST', 50)
    with pytest.raises(UserError, match='a.png is larger than'):
        find_sources([f'{web}/a.png'])


def test_a_stream_that_is_left_is_closed(web: str) -> None:
    source, = find_sources([f'{web}/live'])
    assert next(source.frames).pixels.shape == (64, 80)
    source.frames.close()  # type: ignore[attr-defined]
    assert Handler.gone.wait(20)


def test_images_of_several_folders_are_named_from_their_common_one(tmp_path: Path) -> None:
    for folder in ('day', 'night'):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / '1.png'), np.zeros((60, 80), np.uint8))
    several, = find_sources([f'{tmp_path}/*/1.png'])
    assert list(several.names) == ['day/1.png', 'night/1.png']
    assert [frame.name for frame in several.frames] == list(several.names)
    with pytest.raises(UserError, match='Two frames have the name 1.png'):
        find_sources([f'{tmp_path}/day', f'{tmp_path}/night'])
    for twice in (['day/1.png', 'day/../day/1.png'], ['day', 'night', 'day/'], ['*/1.png'] * 2):
        with pytest.raises(UserError, match='is named twice; name each source once'):
            find_sources([f'{tmp_path}/{text}' for text in twice])


def test_a_topic_of_what_is_no_bag_is_reported(
    images: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    find_sources([str(images / '0.png')])
    assert not caplog.text
    for name in ('', '0.png'):
        find_sources([str(images / name)], topic='/image_raw')
        list(read_frames(images / name, topic='/image_raw'))
        assert caplog.text.count(f'{images / name} is not a bag, so the topic /image_raw') == 2


def test_results_in_a_folder_are_not_detected_in_again(images: Path) -> None:
    for name in ('pictures', 'out/pictures/sub', 'out/normalized'):
        (images / name).mkdir(parents=True)
        cv2.imwrite(str(images / name / 'a.png'), np.zeros((60, 80), np.uint8))
    (images / 'out' / 'detections.json').touch()
    found, = find_sources([str(images)])
    assert list(found.names) == ['0.png', '1.png', '2.png', 'photo.png', 'pictures/a.png']
    assert find_sources([str(images / 'out' / 'normalized')])[0].total == 1
