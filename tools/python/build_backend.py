"""Makes the wheel of this package (PEP 517, PEP 660), so that `pip install ./tools/python` needs neither setuptools nor
a network. A wheel is a zip file with a list of its files."""
import base64
import hashlib
import io
import pathlib
import re
import tarfile
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
TAG = "py3-none-any"
TIME = (1980, 1, 1, 0, 0, 0)


def project():
    """The simple values of [project] in pyproject.toml; tomllib is younger than the Pythons that we support."""
    text = (HERE / "pyproject.toml").read_text(encoding="utf-8").partition("[project]")[2]
    return dict(re.findall(r'^([\w-]+) = "(.*)"$', text, re.M))


def metadata():
    about = project()
    return (f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {about['version']}\n"
            f"Summary: {about['description']}\nRequires-Python: {about['requires-python']}\nLicense: MIT\n")


def release():
    about = project()
    return f"{about['name']}-{about['version']}"


def sources():
    return sorted(path for path in (HERE / "promisefs").iterdir() if path.suffix == ".py" or path.name == "py.typed")


def write_wheel(directory, files):
    """A wheel of {name in the wheel: bytes}; its file name."""
    info = f"{release()}.dist-info"
    files = {**files, f"{info}/METADATA": metadata().encode(),
             f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: promisefs\nRoot-Is-Purelib: true\nTag: {TAG}\n".encode()}
    record = ""
    name = f"{release()}-{TAG}.whl"
    with zipfile.ZipFile(pathlib.Path(directory) / name, "w", zipfile.ZIP_DEFLATED) as wheel:
        for path, data in files.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record += f"{path},sha256={digest},{len(data)}\n"
            wheel.writestr(file_info(path), data)
        wheel.writestr(file_info(f"{info}/RECORD"), f"{record}{info}/RECORD,,\n")
    return name


def file_info(path):
    """The same for each build, so that the same sources make the same wheel."""
    info = zipfile.ZipInfo(path, TIME)
    info.external_attr = 0o644 << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    return write_wheel(wheel_directory, {f"promisefs/{path.name}": path.read_bytes() for path in sources()})


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    return write_wheel(wheel_directory, {"promisefs.pth": f"{HERE}\n".encode()})


def build_sdist(sdist_directory, config_settings=None):
    name = f"{release()}.tar.gz"
    with tarfile.open(pathlib.Path(sdist_directory) / name, "w:gz") as archive:
        for path in [HERE / "pyproject.toml", HERE / "build_backend.py", *sources()]:
            archive.add(path, f"{release()}/{path.relative_to(HERE)}")
        info = tarfile.TarInfo(f"{release()}/PKG-INFO")
        info.size = len(metadata().encode())
        archive.addfile(info, io.BytesIO(metadata().encode()))
    return name
