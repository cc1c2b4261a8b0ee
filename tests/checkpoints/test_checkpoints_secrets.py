"""No token, password or signed address reaches an error, whatever a foreign message says."""

from __future__ import annotations

import pytest

from catalogger.errors import CataloggerError, NetworkUnreachable, masked

HF = "hf_AbCdEfGhIjKlMnOpQrStUvWxYz"
DAPI = "dapi" + "0123456789abcdef" * 2
SIGNATURE = "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
SECRETS = {
    HF: [
        f"token {HF} is not valid",
        f"HF_TOKEN={HF}",
        f"Authorization: Bearer {HF}",
        f"{{'authorization': 'Bearer {HF}'}}",
        f'{{"token": "{HF}"}}',
        f"https://user:{HF}@huggingface.co/org/name",
        f"https://{HF}@huggingface.co/org/name",
        f"got '{HF}'.",
    ],
    DAPI: [f"token={DAPI}", f"Authorization: Bearer {DAPI}", f"DATABRICKS_TOKEN={DAPI}", f"https://token:{DAPI}@adb"],
    "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.c2ln": [
        "Authorization: Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.c2ln",
        "authorization: bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.c2ln",
        "{'Authorization': 'Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.c2ln'}",
    ],
    "dXNlcjpwYXNzd29yZA==": [
        "Authorization: Basic dXNlcjpwYXNzd29yZA==",
        "{'Authorization': 'Basic dXNlcjpwYXNzd29yZA=='}",
    ],
    "correct-horse-battery": [
        "password=correct-horse-battery",
        "password: correct-horse-battery",
        '{"password": "correct-horse-battery"}',
        "{'client_secret': 'correct-horse-battery'}",
        "https://user:correct-horse-battery@example.com/x",
        "postgresql://mlflow:correct-horse-battery@db:5432/mlflow",
    ],
    "hunter2": ["password=hunter2", "http://proxy:hunter2@10.0.0.1:3128"],
    SIGNATURE: [
        f"GET https://b.s3.amazonaws.com/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature={SIGNATURE} failed",
        f"https://cdn/x?Expires=1&Signature={SIGNATURE}&Key-Pair-Id=K",
        f"https://a.blob.core.windows.net/c/b?sv=2024&sig={SIGNATURE}",
    ],
    "AKIAIOSFODNN7EXAMPLE": [
        "https://b.s3.amazonaws.com/k?X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20260101%2Fus-east-1%2Fs3&X-Amz-Date=1"
    ],
}
CASES = [(secret, text) for secret, texts in SECRETS.items() for text in texts]
PLAIN = [
    "https://huggingface.co/BAAI/bge-small-en-v1.5/resolve/main/config.json",
    "serves the first token's vector",
    "set HF_TOKEN to a token of that account",
    "The token that was sent has no access.",
    "the tokenizer_config.json has no chat template",
    'holds "model.layers.0.self_attn.q_proj.weight"',
    "5c38ec7c405ec4b44b94cc5a9bb96e735b38267a",
    "the signature requirements of Unity Catalog",
    "a token classification head",
    "http://127.0.0.1:5000/#/experiments/1",
    "models:/main.ml.name@champion",
    "sqlite:////home/me/mlflow.db",
]


@pytest.mark.parametrize(("secret", "text"), CASES)
def test_secret_is_masked(secret: str, text: str) -> None:
    assert secret in text
    assert secret not in masked(text)
    assert "***" in masked(text)


@pytest.mark.parametrize("text", PLAIN)
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert masked(text) == text


@pytest.mark.parametrize(("secret", "text"), CASES)
def test_masking_twice_is_masking_once(secret: str, text: str) -> None:
    assert masked(masked(text)) == masked(text)


def test_address_stays_readable() -> None:
    assert masked(f"https://user:{HF}@huggingface.co/org/name") == "https://***:***@huggingface.co/org/name"


@pytest.mark.parametrize("kind", [CataloggerError, NetworkUnreachable])
def test_every_face_of_an_error_is_masked(kind: type[CataloggerError]) -> None:
    error = kind(f"failed with {HF}", f"try {HF}")
    faces = (str(error), repr(error), error.message, error.fix, *map(str, error.args), str(error.document()))
    assert [face for face in faces if HF in face] == []
