"""HTCondor is unpacked from the archive of Debian that apt is set up with."""

import shutil

import pytest

from services.unpack_htcondor import VARIABLE, mirror

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("apt-get"), reason="a system without apt"),
]
UBUNTU = {"ID": "ubuntu", "VERSION_CODENAME": "noble"}
SOURCES = """\
Types: deb
URIs: {url}
Suites: bookworm bookworm-updates
Components: main contrib
"""


@pytest.fixture
def apt(tmp_path, monkeypatch):
    """The folder of apt's sources, which has none."""
    folder = tmp_path / "sources.list.d"
    folder.mkdir()
    config = tmp_path / "apt.conf"
    config.write_text(f'Dir::Etc::sourcelist "/dev/null";\nDir::Etc::sourceparts "{folder}";\n')
    monkeypatch.setenv("APT_CONFIG", str(config))
    monkeypatch.delenv(VARIABLE, raising=False)
    return folder


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.sources", SOURCES),
        ("a.list", "deb {url} bookworm main\n"),
        (
            "a.list",
            "# deb http://c.test/debian b main\ndeb [arch=amd64] {url} b main # it\n",
        ),
    ],
)
def test_the_archive_is_that_of_apt(apt, name, text, slash):
    (apt / name).write_text(text.format(url=f"http://mirror.test/pub/debian{slash}"))
    (apt / "0.list").write_text("deb http://other.test/node_20.x nodistro main\n")
    assert mirror(UBUNTU) == "http://mirror.test/pub/debian/"


def test_an_archive_of_another_name_is_known_by_the_release_of_the_machine(apt):
    system = {"ID": "debian", "VERSION_CODENAME": "forky"}
    (apt / "a.list").write_text(
        "deb cdrom:[Debian GNU/Linux 14 _Forky_]/ forky main\n"
        "deb http://a.test/security forky-security main\n"
        "deb http://a.test/flat ./\n"
        "deb http://a.test/remote forky main\n"
    )
    assert mirror(system) == "http://a.test/remote/"


def test_without_an_archive_it_says_what_to_set(apt, monkeypatch):
    (apt / "a.list").write_text("deb http://other.test/node_20.x nodistro main\n")
    with pytest.raises(SystemExit, match="set DEBIAN_MIRROR to the address of one"):
        mirror(UBUNTU)
    monkeypatch.setenv(VARIABLE, "http://near.test/debian")
    assert mirror(UBUNTU) == "http://near.test/debian"
