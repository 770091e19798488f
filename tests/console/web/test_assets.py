import gzip
from pathlib import Path

import pytest

from jigsaw_triton.console.web.assets import load_assets
from jigsaw_triton.errors import MissingDependencyError


def test_missing_pages_are_an_error_that_says_how_to_build_them(tmp_path: Path) -> None:
    with pytest.raises(MissingDependencyError, match="have not been built") as caught:
        load_assets(tmp_path)
    assert "make setup" in caught.value.hint


def test_all_files_are_read_and_text_is_compressed(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "index.html").write_text("<p>" + 100 * "hello ")
    (tmp_path / "sub" / "app.js").write_text("x")
    (tmp_path / "font.woff2").write_bytes(bytes(100))
    assets = load_assets(tmp_path)
    assert assets.keys() == {"index.html", "sub/app.js", "font.woff2"}
    page = assets["index.html"]
    assert page.type == "text/html; charset=utf-8"
    assert page.compressed is not None
    assert gzip.decompress(page.compressed) == page.content
    assert assets["sub/app.js"].type == "text/javascript; charset=utf-8"
    assert assets["sub/app.js"].compressed is None
    assert (assets["font.woff2"].type, assets["font.woff2"].compressed) == ("font/woff2", None)
    assert page.etag != assets["sub/app.js"].etag
