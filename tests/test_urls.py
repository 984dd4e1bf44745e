"""URLs as they are typed, shown and continued; names with braces."""

from __future__ import annotations

import copy
import pickle

import pytest

from layerprobe.cli.console import say
from layerprobe.errors import MergeError, SampleError, UsageError
from layerprobe.sources.braces import has_braces, names_of
from layerprobe.stores.urls import beside, is_url, name_of, shown, shown_within, without_file


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://me:pass@host/a.jpg", "https://***@host/a.jpg"),
        ("abfs://box@account.dfs.core.windows.net/a", "abfs://box@account.dfs.core.windows.net/a"),
        ("abfs://me:pass@account/a", "abfs://***@account/a"),
        ("https://me:p@ss@host/a@b", "https://***@host/a@b"),
        ("https://me:p'a?s#s@host/a", "https://***@host/a"),
        ("abfs://me:p@ss@account/a", "abfs://***@account/a"),
        ("https://host/a@b.jpg", "https://host/a@b.jpg"),
        ("https://host/a?X-Amz-Credential=AK%2F&X-Amz-Date=1&w=3", "https://host/a?X-Amz-Credential=***&X-Amz-Date=***&w=3"),
        ("https://a.blob/x?sv=2&sig=abc&se=2027&id=7", "https://a.blob/x?sv=***&sig=***&se=***&id=7"),
        ("https://host/a?Key-Pair-Id=K&Signature=S&Policy=P", "https://host/a?Key-Pair-Id=***&Signature=***&Policy=***"),
        ("https://host/a?access_token=t&api_key=k&author=me", "https://host/a?access_token=***&api_key=***&author=me"),
        ("https://host/a??sig=abc", "https://host/a??sig=***"),
        ("s3://bucket/a?b=c", "s3://bucket/a?b=c"),
        ("photos/a@b:c?token=x", "photos/a@b:c?token=x"),
    ],
)  # fmt: skip
def test_what_is_secret_in_a_url_is_not_shown(url: str, expected: str) -> None:
    assert shown(url) == expected
    assert shown_within(f"--input image={url} x.npz") == (
        f"--input image={expected} x.npz" if is_url(url) else f"--input image={url} x.npz"
    )


def test_what_is_secret_is_not_shown_in_the_words_of_others_either() -> None:
    told = "0, message='', url='https://me:pass@host/a?sig=abc'"
    assert shown_within(told) == "0, message='', url='https://***@host/a?sig=***'"


def test_what_is_shown_twice_is_as_what_is_shown_once() -> None:
    told = "`layers https://u:p@host/m?sig=a` lists them, not 'https://host/b?token=c', nor (gs://b/c?key=d)."
    once = "`layers https://***@host/m?sig=***` lists them, not 'https://host/b?token=***', nor (gs://b/c?key=***)."
    assert shown_within(told) == shown_within(once) == once


def test_long_texts_are_searched_in_a_moment() -> None:
    for text in ("a" * 10**6 + "://", "a://" * 10**5, "https://h/" + "?" * 10**6, "://" + "@" * 10**6):
        assert shown_within(text) == shown_within(shown_within(text))


def test_no_error_says_a_password_whatever_it_is_about(capsys: pytest.CaptureFixture[str]) -> None:
    url = "https://me:geheim@host/a?X-Amz-Signature=geheim"
    raised = [MergeError(f"part {url!r} is damaged."), SampleError(f"{url}: gone"), UsageError(url, 1)]
    for error in (*raised, *map(copy.copy, raised), pickle.loads(pickle.dumps(raised[0]))):
        assert "geheim" not in f"{error} {error!r} {error.args}"
        assert "https://***@host/a?X-Amz-Signature=***" in str(error)
    assert str(raised[0]) == "part 'https://***@host/a?X-Amz-Signature=***' is damaged."
    say(f"skipped {url}: gone")
    assert capsys.readouterr().err == "layerprobe: skipped https://***@host/a?X-Amz-Signature=***: gone\n"


@pytest.mark.parametrize(
    ("url", "name", "expected"),
    [
        ("s3://bucket/lists/all.txt", "a.jpg", "s3://bucket/lists/a.jpg"),
        ("s3://bucket/lists/all.txt", "../photos/./a.jpg", "s3://bucket/photos/a.jpg"),
        ("s3://bucket/lists/all.txt", "/a.jpg", "s3://bucket/a.jpg"),
        ("s3://bucket/all.txt", "../../a.jpg", "s3://bucket/a.jpg"),
        ("https://host/lists/all.txt?sig=x", "a.jpg", "https://host/lists/a.jpg"),
        ("https://host/all.txt", "https://other/a.jpg", "https://other/a.jpg"),
        ("memory://all.txt", "a.jpg", "memory://a.jpg"),
    ],
)
def test_a_list_names_what_is_beside_it(url: str, name: str, expected: str) -> None:
    assert beside(url, name) == expected


def test_paths_of_this_machine_are_no_urls() -> None:
    assert not any(map(is_url, ("a.jpg", "/a//b.jpg", "C:\\x", "-", "x.h5::a", "a:b", "./s3://x")))
    assert all(map(is_url, ("s3://b/a", "HTTPS://host/a", "memory://a")))
    assert without_file("file:///tmp/a b.jpg") == "/tmp/a b.jpg"
    assert name_of("https://host/a/b.jpg?x=/y") == "b.jpg"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("d-{0008..0010}.tar", ["d-0008.tar", "d-0009.tar", "d-0010.tar"]),
        ("{9..11}", ["9", "10", "11"]),
        ("{2..0}", ["2", "1", "0"]),
        ("{a,b}{1..2}", ["a1", "a2", "b1", "b2"]),
        ("x{,.old}", ["x", "x.old"]),
    ],
)
def test_braces_stand_for_several_names(name: str, expected: list[str]) -> None:
    assert has_braces(name)
    assert names_of(name) == expected


@pytest.mark.parametrize("name", ["{}", "{a}", "a{1..}", "{1...3}", "{a..c}", "a.jpg"])
def test_other_braces_are_part_of_the_name(name: str) -> None:
    assert not has_braces(name)
    assert names_of(name) == [name]


@pytest.mark.parametrize("name", ["{0..9999999999999999999999}", "{1..2000}{1..2000}", "{0..1000000}"])
def test_a_range_that_is_too_long_is_refused_at_once(name: str) -> None:
    with pytest.raises(UsageError, match="smaller ranges"):
        names_of(name)
