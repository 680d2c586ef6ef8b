"""Hashing and unpacking for 'cargo xtask setup', with Python's standard library alone.

    sha256 FILE               prints the digest
    zip ARCHIVE MEMBER OUT    writes one member of a zip file
    gunzip IN OUT             writes what IN holds; a file that is not gzipped is copied
    deb PACKAGE FOLDER        unpacks a Debian package's files (where dpkg-deb is missing)
    get URL OUT               downloads, with progress on stderr
"""

import gzip
import hashlib
import shutil
import sys
import tarfile
import urllib.request
import zipfile


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    print(digest.hexdigest())


def unzip(archive, member, out):
    with zipfile.ZipFile(archive) as source, source.open(member) as data, open(out, "wb") as sink:
        shutil.copyfileobj(data, sink)


def gunzip(path, out):
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    with (gzip.open if packed else open)(path, "rb") as data, open(out, "wb") as sink:
        shutil.copyfileobj(data, sink)


def deb(package, folder):
    with open(package, "rb") as file:
        if file.read(8) != b"!<arch>\n":
            sys.exit(f"{package} is no Debian package")
        while head := file.read(60):
            name, size = head[:16].decode().strip().rstrip("/"), int(head[48:58])
            if name.startswith("data.tar"):
                with tarfile.open(fileobj=file, mode="r|*") as tar:
                    tar.extractall(folder)
                return
            file.seek(size + size % 2, 1)
    sys.exit(f"{package} holds no data.tar")


def get(url, out):
    with urllib.request.urlopen(url, timeout=60) as answer, open(out, "wb") as sink:
        total, done = int(answer.headers.get("content-length") or 0), 0
        while block := answer.read(1 << 18):
            sink.write(block)
            done += len(block)
            if sys.stderr.isatty():
                print(f"\r    {done >> 20} of {total >> 20} MiB", end="", file=sys.stderr)
    if sys.stderr.isatty():
        print(file=sys.stderr)


{"sha256": sha256, "zip": unzip, "gunzip": gunzip, "deb": deb, "get": get}[sys.argv[1]](*sys.argv[2:])
