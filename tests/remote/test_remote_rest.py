"""Calls to a server that stumbles, refuses, lies, or is another one than was meant."""

from __future__ import annotations

import gc
import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.secrets import secret
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from remote.answering import Answer, Answering, answer, certificate, reset, said, stall, stall_after

from catalogger.errors import AccessDenied, CataloggerError, NetworkUnreachable, Refused, UsageError
from catalogger.remote.patience import VARIABLE, TryAgain
from catalogger.remote.rest import Rest
from catalogger.remote.workspace import workspace, workspace_config

DONE = said(200, {"done": True})
TOKEN = secret("a user of the workspace", "databricks")
PASSWORD = secret("an address")
SIGNATURE = secret("an address", "signature")
LOGIN = "<!DOCTYPE html><html><title>Log in</title></html>"
HTML = {"Content_Type": "text/html; charset=utf-8"}
STALLS = (5.0, 0.2)
CUT = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{"done": tr'
CUT_CHUNK = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n{"done": tr'
BROKEN_GZIP = answer(200, "{}", Content_Encoding="gzip")
TWO_LENGTHS = b"HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\n{}"


# urllib3 leaves the socket of an answer that it cannot unwrap to the garbage collector, which warns.
FORGOTTEN = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "20")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """One attempt, and no other."""
    monkeypatch.setenv(VARIABLE, "0")


@pytest.fixture
def serving() -> Iterator[Callable[..., Answering]]:
    """Starts a server with its answers; ended with the test."""
    begun: list[Answering] = []

    def serve(*answers: Answer, **options: Any) -> Answering:
        begun.append(Answering(*answers, **options).__enter__())
        return begun[-1]

    yield serve
    for server in begun:
        server.__exit__()


Serving = Callable[..., Answering]


def _bearer(token: str = TOKEN) -> Callable[[], dict[str, str]]:
    return lambda: {"Authorization": f"Bearer {token}"}


def _whole(error: BaseException | None) -> str:
    """All that a traceback would show of an error and of those behind it."""
    shown = ""
    while error:
        shown += f"{error!r} {error} {vars(error)} "
        error = error.__cause__ or error.__context__
    return shown


def test_a_call_is_sent_as_it_was_asked_for(serving: Serving) -> None:
    server = serving(said(200, {"name": "gte", "of": ["ü"]}, X_Org="7"))
    rest = Rest(server.url + "/", _bearer())
    document, headers = rest.answer("POST", "/models", {"name": "é"}, query={"page": "a b&c"}, headers={"X-Once": "1"})
    assert document == {"name": "gte", "of": ["ü"]}
    assert headers["x-org"] == "7"
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("POST", "/models?page=a+b%26c")
    assert json.loads(asked.body) == {"name": "é"}
    assert (asked.headers["authorization"], asked.headers["x-once"]) == (f"Bearer {TOKEN}", "1")
    assert asked.headers["user-agent"].startswith("catalogger/")


def test_credentials_are_asked_for_anew_for_every_attempt(serving: Serving) -> None:
    server = serving(answer(503, Retry_After="0"), DONE)
    given = [secret("old"), secret("new")]
    tokens = iter(given)
    Rest(server.url, lambda: {"Authorization": next(tokens)}).call("GET", "/")
    assert [a.headers["authorization"] for a in server.asked] == given


def test_netrc_does_not_take_the_place_of_the_token(serving: Serving) -> None:
    netrc = Path.home() / ".netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password " + secret("netrc") + "\n")
    netrc.chmod(0o600)
    server = serving(DONE)
    Rest(server.url, _bearer()).call("GET", "/")
    Rest(server.url).call("GET", "/")
    assert server.asked[0].headers["authorization"] == f"Bearer {TOKEN}"
    assert server.asked[1].headers["authorization"].startswith("Basic ")


@pytest.mark.parametrize("given", [answer(200), answer(204), answer(200, "200 OK"), answer(200, " \n"), said(200, {})])
def test_an_empty_answer_is_an_empty_object(given: bytes, serving: Serving) -> None:
    assert Rest(serving(given).url).call("DELETE", "/models/a.b.c") == {}


@pytest.mark.parametrize("charset", ["", "; charset=latin-1", "; charset=utf-16", "; charset=undefined"])
def test_json_is_utf_8_whatever_its_header_says(charset: str, serving: Serving) -> None:
    body = '\ufeff{"name": "Größe"}'.encode()
    server = serving(answer(200, body, Content_Type=f"application/json{charset}"))
    assert Rest(server.url).call("GET", "/") == {"name": "Größe"}


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize("body", ['{"error_code": "BUSY", "message": "later"}', LOGIN, ""])
def test_a_server_that_stumbles_is_asked_again(status: int, body: str, serving: Serving) -> None:
    stumbles = answer(status, body, Retry_After="0")
    server = serving(stumbles, stumbles, DONE)
    assert Rest(server.url).call("POST", "/models", {"name": "x"}) == {"done": True}
    assert [json.loads(a.body) for a in server.asked] == [{"name": "x"}] * 3


@pytest.mark.parametrize(
    "fault", [reset, stall, stall_after(CUT), CUT, CUT_CHUNK, b"", b"no HTTP\r\n\r\n",
              answer(200, '{"done": tr'), answer(200, b'{"done": "\xff"}')],
    ids=["reset", "stall", "stall inside", "cut", "cut chunk", "closed", "no HTTP", "half JSON",
         "no UTF-8"],
)  # fmt: skip
class TestABrokenAnswer:
    def test_is_asked_for_again(self, fault: Answer, serving: Serving) -> None:
        server = serving(fault, DONE)
        assert Rest(server.url, timeout=STALLS).call("GET", "/") == {"done": True}
        assert len(server.asked) == 2

    def test_is_a_matter_of_the_network_in_the_end(self, fault: Answer, serving: Serving, impatient: None) -> None:
        server = serving(fault)
        with pytest.raises(NetworkUnreachable) as raised:
            Rest(server.url, timeout=STALLS).call("GET", "/")
        assert server.url in raised.value.message
        assert raised.value.fix.startswith("Check the address and the network")
        assert raised.value.exit_code == 5

    def test_is_not_asked_for_again_where_that_would_do_it_twice(self, fault: Answer, serving: Serving) -> None:
        server = serving(fault, DONE)
        with pytest.raises(TryAgain) as raised:
            Rest(server.url, timeout=STALLS).call("POST", "/models/versions", {"name": "x"}, once=True)
        assert isinstance(raised.value.error, NetworkUnreachable)
        assert len(server.asked) == 1


@pytest.mark.parametrize("fault", [TWO_LENGTHS, BROKEN_GZIP], ids=["two lengths", "gzip"])
@FORGOTTEN
def test_an_answer_that_is_wrongly_wrapped_is_asked_for_again(fault: bytes, serving: Serving) -> None:
    assert Rest(serving(fault, DONE).url).call("GET", "/") == {"done": True}
    gc.collect()


def test_once_leaves_the_pause_to_the_caller(serving: Serving) -> None:
    server = serving(answer(503, Retry_After="4"))
    with pytest.raises(TryAgain) as raised:
        Rest(server.url).call("POST", "/", once=True)
    assert raised.value.after == 4
    assert len(server.asked) == 1


def test_once_gives_the_answer(serving: Serving) -> None:
    assert Rest(serving(DONE).url).call("POST", "/", once=True) == {"done": True}


def test_when_patience_ends_the_server_is_quoted(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "2")
    server = serving(said(429, {"message": "quota of the workspace"}, Retry_After="30"))
    with pytest.raises(NetworkUnreachable) as raised:
        Rest(server.url).call("GET", "/")
    assert raised.value.message == f'"{server.url}" answered 429 again and again: quota of the workspace'
    assert len(server.asked) == 1, "a pause that is longer than the patience is not begun"


def test_a_date_to_come_back_at_is_no_reason_to_give_up(serving: Serving) -> None:
    server = serving(answer(503, Retry_After="Fri, 31 Dec 2027 23:59:59 GMT"), DONE)
    assert Rest(server.url).call("GET", "/") == {"done": True}


def test_nobody_there(serving: Serving, impatient: None) -> None:
    with Answering(DONE) as gone:
        pass
    with pytest.raises(NetworkUnreachable, match="cannot be reached"):
        Rest(gone.url).call("GET", "/")


@pytest.mark.parametrize(
    ("status", "document", "reason", "message"),
    [
        (400, {"error_code": "INVALID_ARGUMENT", "message": "Name"}, "INVALID_ARGUMENT", "Name"),
        (404, {"error_code": "SCHEMA_NOT_FOUND", "message": "no ml"}, "SCHEMA_NOT_FOUND", "no ml"),
        (409, {"error_code": "ALREADY_EXISTS", "message": "two\nlines"}, "ALREADY_EXISTS", "two lines"),
        (409, {"error_code": 7, "message": ["odd"]}, "7", "['odd']"),
        (501, {"message": None}, "", "Words"),
        (400, {}, "", "Words"),
        (400, ["odd"], "", '["odd"]'),
        (400, {"message": "\ud800 \x1b[31mred"}, "", "   [31mred"),
    ],
)
def test_a_refusal_is_final(status: int, document: Any, reason: str, message: str, serving: Serving) -> None:
    server = serving(said(status, document), DONE)
    with pytest.raises(Refused) as refused:
        Rest(server.url).call("GET", "/models/main.ml.q")
    error = refused.value
    assert (error.status, error.reason, error.said, error.exit_code) == (status, reason, message, 7)
    assert error.message == f'"{server.url}" answered {status}: {message}'
    assert len(server.asked) == 1


def test_forbidden_is_a_refusal_with_the_exit_code_of_permissions(serving: Serving) -> None:
    server = serving(said(403, {"error_code": "PERMISSION_DENIED", "message": "Access denied."}), DONE)
    with pytest.raises(Refused) as refused:
        Rest(server.url).call("GET", "/")
    assert (refused.value.status, refused.value.reason, refused.value.exit_code) == (403, "PERMISSION_DENIED", 4)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("body", "words"),
    [('{"message": "Invalid access token."}', "Invalid access token."), (LOGIN, "a web page"), ("", "Words")],
)
def test_an_unknown_token_is_final(body: str, words: str, serving: Serving) -> None:
    server = serving(answer(401, body), DONE)
    with pytest.raises(AccessDenied) as denied:
        Rest(server.url, _bearer()).call("GET", "/")
    assert denied.value.message == f'"{server.url}" does not know the token, and says: {words}'
    assert denied.value.exit_code == 4
    assert TOKEN not in _whole(denied.value)
    assert len(server.asked) == 1


def test_a_route_that_is_not_there_answers_in_plain_text(serving: Serving) -> None:
    server = serving(answer(404, "404 Not Found\nat line 2", Content_Type="text/plain"))
    with pytest.raises(Refused) as refused:
        Rest(server.url).call("GET", "/aliases")
    assert (refused.value.status, refused.value.reason, refused.value.said) == (404, "", "404 Not Found")


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (answer(200, LOGIN, **HTML), "200 with a web page"),
        (answer(403, LOGIN, **HTML), "403 with a web page"),
        (answer(404, f"\n {LOGIN}"), "404 with a web page"),
        (answer(302, LOGIN, Location="https://login.example.com/", **HTML), "302 with a redirection"),
        (answer(307, Location="https://login.example.com/"), "307 with a redirection"),
        (answer(301, "{}", Location="/elsewhere"), "301 with a redirection"),
        (said(200, []), "200 with what is no JSON object"),
        (said(200, "ready"), "200 with what is no JSON object"),
        (said(200, None), "200 with what is no JSON object"),
        (answer(200, "healthy"), "200 with what is no JSON object"),
        (answer(200, "[" * 100_000), "200 with what is no JSON object"),
    ],
)
def test_another_server_than_was_meant_is_told_at_once(given: bytes, what: str, serving: Serving) -> None:
    server = serving(given, DONE)
    with pytest.raises(UsageError) as raised:
        Rest(server.url).call("GET", "/catalogs")
    assert raised.value.message == f'"{server.url}" answered {what}, not as a registry does.'
    assert "login page" in raised.value.fix
    assert len(server.asked) == 1, "neither asked again nor followed"


@pytest.mark.parametrize("body", [json.dumps({"message": "x" * 5000, "error_code": "y" * 5000}), "x" * 5000])
def test_a_huge_error_is_shortened(body: str, serving: Serving) -> None:
    with pytest.raises(Refused) as refused:
        Rest(serving(answer(400, body)).url).call("GET", "/")
    assert 300 <= len(refused.value.said) <= 1000
    assert len(refused.value.reason) <= 100


def test_what_the_server_says_is_masked(serving: Serving) -> None:
    address = f"https://x/y?sig={SIGNATURE}%2Fdef&X-Amz-Signature={SIGNATURE}"
    body = {"message": f"token={TOKEN} or {address} is wrong: {TOKEN}"}
    for status, error in ((400, Refused), (401, AccessDenied)):
        with pytest.raises(error) as refused:
            Rest(serving(said(status, body)).url, _bearer()).call("GET", "/")
        shown = _whole(refused.value)
        assert "sig=***" in shown
        assert not [told for told in (TOKEN, SIGNATURE) if told in shown]


def test_the_token_is_not_in_what_is_printed_of_the_client() -> None:
    assert TOKEN not in repr(Rest("http://127.0.0.1:1", _bearer()))


@pytest.mark.parametrize("spoilt", ["{}\n", "\r{}", "{}\0", " {}", "{}\x01", "{}é", "{}✓", "\x1c{}"])
def test_a_token_that_cannot_be_sent_is_refused_and_not_shown(spoilt: str, serving: Serving) -> None:
    server = serving(DONE)
    with pytest.raises(UsageError, match="line break") as refused:
        Rest(server.url, lambda: {"Authorization": spoilt.replace("{}", TOKEN)}).call("GET", "/")
    assert TOKEN not in _whole(refused.value)
    assert server.asked == []


@pytest.mark.parametrize(
    "base", ["", "nonsense", "ftp://127.0.0.1", "http://", "http://[::1", "http://127.0.0.1:99999", "http://HOST:PORT",
             "http://exa mple", "http://..", f"http://{'a' * 70}.b", "uc:http://127.0.0.1:1"],
)  # fmt: skip
def test_an_address_that_is_none(base: str) -> None:
    with pytest.raises(UsageError, match="is no address of a server"):
        Rest(base).call("GET", "/catalogs")


def test_a_password_in_the_address_is_masked(impatient: None) -> None:
    with Answering(DONE) as gone:
        pass
    with pytest.raises(NetworkUnreachable) as raised:
        Rest(gone.url.replace("//", f"//me:{PASSWORD}@")).call("GET", "/")
    assert PASSWORD not in raised.value.message


def test_a_certificate_that_does_not_verify_is_final(tmp_path: Path, serving: Serving) -> None:
    tls, _ = certificate(tmp_path)
    server = serving(DONE, tls=tls)
    with pytest.raises(NetworkUnreachable) as raised:
        Rest(server.url, _bearer()).call("GET", "/")
    assert raised.value.message == f'The certificate of "{server.url}" does not verify.'
    assert raised.value.fix == "REQUESTS_CA_BUNDLE names the file of the authority that signed it."
    assert raised.value.exit_code == 5
    assert server.asked == []


def test_a_certificate_that_was_made_known(tmp_path: Path, serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    tls, file = certificate(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(file))
    assert Rest(serving(DONE, tls=tls).url).call("GET", "/") == {"done": True}


def test_authorities_that_are_none(tmp_path: Path, serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    tls, _ = certificate(tmp_path)
    (tmp_path / "nonsense.pem").write_text("nonsense")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "nonsense.pem"))
    with pytest.raises(NetworkUnreachable, match="does not verify"):
        Rest(serving(DONE, tls=tls).url).call("GET", "/")


def test_authorities_that_are_not_there(tmp_path: Path, serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    tls, _ = certificate(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "nothing.pem"))
    with pytest.raises(UsageError, match=r"nothing\.pem") as raised:
        Rest(serving(DONE, tls=tls).url).call("GET", "/")
    assert "REQUESTS_CA_BUNDLE" in raised.value.fix


def test_https_to_a_server_that_speaks_none_is_final(serving: Serving) -> None:
    server = serving(answer(400))
    with pytest.raises(NetworkUnreachable, match="speaks no TLS") as raised:
        Rest(server.url.replace("http:", "https:")).call("GET", "/")
    assert raised.value.fix == "Is it an http:// address?"


def test_a_greeting_that_breaks_off_may_pass(serving: Serving) -> None:
    server = serving(b"")
    with pytest.raises(TryAgain) as raised:
        Rest(server.url.replace("http:", "https:")).call("GET", "/", once=True)
    assert "cannot be reached" in raised.value.error.message


patient = settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
_NAMES = ["Content-Type", "Content-Length", "Content-Encoding", "Transfer-Encoding", "Retry-After", "Location", "X"]
_VALUES = ["application/json", "text/html; charset=undefined", "gzip", "deflate", "chunked", "-1", "nan", "//["]
_heads = st.dictionaries(st.sampled_from(_NAMES), st.sampled_from(_VALUES) | st.integers(0, 99).map(str), max_size=4)
_bodies = st.binary() | st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["message", "error_code"]) | st.text(), inner),
).map(lambda document: json.dumps(document).encode())


@pytest.fixture
def stranger(serving: Serving, impatient: None) -> Iterator[Answering]:
    """A server whose answers are anything; what the HTTP library logs of them is not looked at."""
    logging.disable(logging.WARNING)
    yield serving(b"")
    logging.disable(logging.NOTSET)
    gc.collect()


def _asked(stranger: Answering, given: bytes) -> None:
    """The answer is an object or an error of ours, with a message that can be printed."""
    stranger.give(given)
    try:
        assert isinstance(Rest(stranger.url, timeout=(5, 5)).call("GET", "/"), dict)
    except CataloggerError as error:
        str(error).encode()


@FORGOTTEN
@patient
@given(given=st.binary())
@example(given=b"HTTP/1.1 200 OK\r\n\r\n" + b'{"a":' * 50_000)
@example(given=b"HTTP/1.1 999 \r\n\r\n")
@example(given=b"HTTP/1.1 200 OK\r\nContent-Type: a; charset=punycode\r\n\r\n{\xff")
def test_any_bytes_for_an_answer(stranger: Answering, given: bytes) -> None:
    _asked(stranger, given)


@FORGOTTEN
@patient
@given(status=st.integers(200, 999), head=_heads, body=_bodies)
def test_any_http_for_an_answer(stranger: Answering, status: int, head: dict[str, str], body: bytes) -> None:
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    _asked(stranger, f"HTTP/1.1 {status} x\r\n{lines}\r\n".encode() + body)


def test_a_workspace_is_asked_with_the_credentials_of_the_environment(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serving(DONE)
    monkeypatch.setenv("DATABRICKS_HOST", server.url)
    monkeypatch.setenv("DATABRICKS_TOKEN", TOKEN)
    assert workspace("databricks-uc").call("GET", "/api/2.0/x") == {"done": True}
    assert server.asked[-1].path == "/api/2.0/x"
    assert server.asked[-1].headers["authorization"] == f"Bearer {TOKEN}"


def test_a_workspace_is_asked_with_the_credentials_of_a_profile(serving: Serving) -> None:
    server = serving(answer(404), DONE)
    (Path.home() / ".databrickscfg").write_text(f"[there]\nhost = {server.url}\ntoken = {TOKEN}\n")
    assert workspace("databricks-uc://there").call("GET", "/x") == {"done": True}
    assert server.asked[-1].headers["authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize(
    ("uri", "where"), [("databricks-uc", "the environment"), ("databricks-uc://there", 'the profile "there"')]
)
def test_a_workspace_without_credentials(uri: str, where: str) -> None:
    with pytest.raises(AccessDenied) as denied:
        workspace_config(uri)
    assert denied.value.message == f"No Databricks credentials were found in {where}."
    assert "DATABRICKS_TOKEN" in denied.value.fix


def test_a_workspace_token_with_a_line_break_is_not_shown(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serving(DONE)
    monkeypatch.setenv("DATABRICKS_HOST", server.url)
    monkeypatch.setenv("DATABRICKS_TOKEN", f"{TOKEN}\nX-Other: 1")
    with pytest.raises(UsageError, match="line break") as refused:
        workspace("databricks-uc").call("GET", "/x")
    assert TOKEN not in _whole(refused.value)
    assert all("x-other" not in a.headers for a in server.asked)


def test_a_workspace_without_the_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "databricks.sdk.core", None)
    with pytest.raises(UsageError) as refused:
        workspace_config("databricks-uc")
    assert refused.value.fix == "pip install 'catalogger[databricks]'"
