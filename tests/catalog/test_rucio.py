import json
import os
import socket
import subprocess
import sys
import zlib
from contextlib import contextmanager

import pytest
from paths import TESTS
from servers import OTHERS, http_server, needs_servers, started

from mlaas4hep_dask.catalog import resolve_files
from mlaas4hep_dask.config import Config
from mlaas4hep_dask.dataset.description import description_of
from mlaas4hep_dask.errors import ConfigError, MissingExtraError

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]
DEAD = "http://127.0.0.1:1"  # nobody listens there
SCOPE = "user.someone"


@contextmanager
def configured(config):
    """Rucio's client reads its configuration once in a process; here it is told to forget it."""
    from rucio.common.config import clean_cached_config

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUCIO_CONFIG", str(config))
        clean_cached_config()
        yield
    clean_cached_config()


@pytest.fixture(scope="module")
def storage(cms_files):
    with http_server(cms_files[0].parent) as (_, url):
        yield url


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory, cms_files, storage):
    """The configuration of a Rucio server that knows the tutorial's files, at several storages."""
    folder = tmp_path_factory.mktemp("rucio")
    launched = started(OTHERS, TESTS / "rucio_server.py", folder, log=folder / "log")
    with launched as (_, url):
        assert url, (folder / "log").read_text()
        with configured(folder / "rucio.cfg"):
            _fill(cms_files, storage)
        yield folder / "rucio.cfg"


def _fill(files, storage):
    from rucio.client import Client

    client = Client()
    client.add_scope("root", SCOPE)
    port = int(storage.rpartition(":")[2])
    # The storage that does not answer is preferred by Rucio.
    _add_rse(client, "DOWN", "http", 1, priority=1)
    _add_rse(client, "UP", "http", port, priority=2)
    _add_rse(client, "WEBDAV", "davs", 1, priority=3)
    _add_rse(client, "GRIDFTP", "gsiftp", 1, priority=4)
    signal, *background = files
    client.add_replicas("DOWN", [_facts(file, f"{DEAD}/{file.name}") for file in files[:2]])
    client.add_replicas("UP", [_facts(file, f"{storage}/{file.name}") for file in files])
    _add_dataset(client, "signal", [signal])
    _add_dataset(client, "diboson.1", background[:1])
    _add_dataset(client, "diboson.2", background[1:])
    client.add_container(SCOPE, "diboson")
    client.attach_dids(SCOPE, "diboson", _dids("diboson.1", "diboson.2"))
    client.add_dataset(SCOPE, "empty")

    lost = [_facts(signal, f"{storage}/lost/{i}.root") | {"name": f"lost{i}"} for i in range(2)]
    client.add_replicas("UP", lost)
    down = [{"scope": SCOPE, "name": file["name"], "state": "U"} for file in lost]
    client.update_replicas_states("UP", down)
    by_gridftp = _facts(signal, "gsiftp://127.0.0.1:1/grid.root") | {"name": "gridftp"}
    client.add_replicas("GRIDFTP", [by_gridftp])
    by_webdav = _facts(signal, "davs://127.0.0.1:1/dav.root") | {"name": "dav"}
    client.add_replicas("WEBDAV", [by_webdav])
    for name, held in (("lost", ["lost0", "lost1"]), ("gridftp", ["gridftp"]), ("dav", ["dav"])):
        client.add_dataset(SCOPE, f"{name}.all")
        client.attach_dids(SCOPE, f"{name}.all", _dids(signal.name, *held))
    client.session.close()


def _add_rse(client, name, scheme, port, *, priority):
    client.add_rse(name, deterministic=False)
    uses = dict.fromkeys(("read", "write", "delete"), priority)
    protocol = {"scheme": scheme, "hostname": "127.0.0.1", "port": port, "prefix": "/"}
    protocol["impl"] = "rucio.rse.protocols.gfal.Default"
    client.add_protocol(name, protocol | {"domains": {"lan": uses, "wan": uses}})


def _facts(file, url):
    content = file.read_bytes()
    facts = {"bytes": len(content), "adler32": f"{zlib.adler32(content):08x}"}
    return {"scope": SCOPE, "name": file.name, "pfn": url} | facts


def _dids(*names):
    return [{"scope": SCOPE, "name": name} for name in names]


def _add_dataset(client, name, files):
    client.add_dataset(SCOPE, name)
    client.attach_dids(SCOPE, name, _dids(*(file.name for file in files)))


def config_for(*names, timeout=20):
    samples = [
        {"name": name, "label": i, "files": f"rucio://{SCOPE}:{name}"}
        for i, name in enumerate(names)
    ]
    samples.append({"name": "other", "label": len(names), "files": "http://h/other.root"})
    return Config.from_mapping({"samples": samples, "reading": {"timeout": timeout}})


def resolved(config, *names, **more):
    with configured(config):
        found = resolve_files(description_of(config_for(*names, **more)).listing)
    del found["other"]
    return {sample: [file.file for file in files] for sample, files in found.items()}


@needs_servers
def test_a_data_set_and_a_container_give_all_files_with_all_replicas(catalogue, cms_files, storage):
    found = resolved(catalogue, "signal", "diboson")
    signal, *background = [file.name for file in cms_files]
    assert found == {
        "signal": [f"{DEAD}/{signal}|{storage}/{signal}"],
        "diboson": [
            f"{DEAD}/{background[0]}|{storage}/{background[0]}",
            *(f"{storage}/{name}" for name in background[1:]),
        ],
    }


@needs_servers
def test_webdav_is_read_over_https(catalogue, cms_files, storage):
    signal = cms_files[0].name
    assert resolved(catalogue, "dav.all")["dav.all"] == [
        f"{DEAD}/{signal}|{storage}/{signal}",
        "https://127.0.0.1:1/dav.root",
    ]


@needs_servers
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent", "Data identifier not found. Details: Data identifier 'user.someone:absent' not"),
        ("empty", "Rucio's data set user.someone:empty has no file"),
        (
            "lost.all",
            "of 2 of the 3 files of user.someone:lost.all: user.someone:lost0, user.someone:lost1",
        ),
        ("gridftp.all", "of 1 of the 2 files of user.someone:gridftp.all: user.someone:gridftp"),
    ],
)
def test_what_rucio_cannot_give_is_named(catalogue, name, message):
    with pytest.raises(ConfigError) as caught:
        resolved(catalogue, name)
    assert message in str(caught.value)


@needs_servers
def test_a_wrong_password_is_named(catalogue, tmp_path):
    text = catalogue.read_text().replace("password = secret", "password = guess")
    text = text.replace(f"{catalogue.parent}/tokens", f"{tmp_path}/tokens")
    (tmp_path / "rucio.cfg").write_text(text)
    with pytest.raises(ConfigError, match=r"does not list user\.someone:signal \(.*[Cc]annot"):
        resolved(tmp_path / "rucio.cfg", "signal")


@needs_servers
def test_the_whole_line_runs_on_data_sets_of_rucio(catalogue, cms_plans, tmp_path, storage):
    (tmp_path / "dataset.yaml").write_text(
        "tree: events\n"
        "samples:\n"
        f"  - {{name: single_top, label: 1, files: 'rucio://{SCOPE}:signal'}}\n"
        f"  - {{name: diboson, label: 0, files: 'rucio://{SCOPE}:diboson'}}\n"
        "branches: {exclude: ['MC*', EventWeight]}\n"
        "training: {epochs: 1}\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mlaas4hep_dask.run", "dataset.yaml", "--output", "out"],
        cwd=tmp_path,
        env=os.environ | {"RUCIO_CONFIG": str(catalogue)},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    num_entries = [plan.num_entries for plan in cms_plans]
    assert metrics["counts"]["events_read"] == sum(num_entries)
    counts = {sample["name"]: sample for sample in metrics["samples"]}
    for name, expected in (("single_top", num_entries[0]), ("diboson", sum(num_entries[1:]))):
        assert sum(counts[name][part] for part in ("train", "validation", "test")) == expected
    # The files whose first replica lies at the storage that is down were taken from the other.
    tried = {file.split("|")[-1] for file in metrics["counts"]["retries"]}
    names = [plan.file.rpartition("/")[2] for plan in cms_plans[:2]]
    assert tried == {f"{storage}/{name}" for name in names}


def _config_of(folder, url):
    config = folder / "rucio.cfg"
    config.write_text(
        f"[client]\nrucio_host = {url}\nauth_host = {url}\nauth_type = userpass\nusername = a\n"
        f"password = b\naccount = root\nauth_token_file_path = {folder}/tokens/token\n"
    )
    return config


def test_a_server_of_rucio_that_is_down_is_named(tmp_path):
    pytest.importorskip("rucio", reason="pip install 'mlaas4hep_dask[rucio]'")
    with pytest.raises(ConfigError, match="Cannot connect to the Rucio server") as caught:
        resolved(_config_of(tmp_path, DEAD), "signal")
    assert DEAD in str(caught.value)


def test_a_server_of_rucio_that_never_answers_is_given_up(tmp_path):
    pytest.importorskip("rucio", reason="pip install 'mlaas4hep_dask[rucio]'")
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(ConfigError, match="timed out"):
            resolved(_config_of(tmp_path, url), "signal", timeout=0.2)


def test_a_configuration_that_does_not_exist_is_named(tmp_path):
    pytest.importorskip("rucio", reason="pip install 'mlaas4hep_dask[rucio]'")
    with pytest.raises(ConfigError, match="RUCIO_CONFIG names its file") as caught:
        resolved(tmp_path / "absent.cfg", "signal")
    assert "absent.cfg" in str(caught.value)


def test_a_configuration_that_cannot_be_parsed_is_named(tmp_path):
    pytest.importorskip("rucio", reason="pip install 'mlaas4hep_dask[rucio]'")
    config = _config_of(tmp_path, DEAD)
    config.write_text(config.read_text().replace("[client]\n", ""))
    with pytest.raises(ConfigError, match="no section headers"):
        resolved(config, "signal")


def test_without_the_client_of_rucio_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "rucio.client", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'mlaas4hep_dask\[rucio\]'"):
        resolve_files(description_of(config_for("signal")).listing)
