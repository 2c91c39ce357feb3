"""The description of a saved model, changed by hand as if it had been written so."""

import json
import zlib


def sealed(text):
    """Text of a description whose checksum is right for what it tells now."""
    document = json.loads(text)
    told = json.dumps(document["content"]).encode()
    return json.dumps({**document, "described": zlib.crc32(told)})


def unsealed(path):
    """Leave the checksums out of a description, as formats before them did, to be read as it is."""
    document = json.loads(path.read_text())
    for name in ("checksum", "described"):
        document.pop(name, None)
    path.write_text(json.dumps(document))
