"""What the client of MONAI Label does with a server: run by the Python of an environment
with `monailabel`, which has nothing of trivox.

usage: python monai_driver.py URL FOLDER TOKEN; prints what it got as JSON
"""

import json
import sys
import tempfile
from pathlib import Path

from monailabel.client import MONAILabelClient

url, folder, token = sys.argv[1:]
image = f"{folder}/scan.nii.gz"


def connected():
    """A client with a token, if one is needed.

    Version 0.8.5 keeps the content type of its last form among the headers of a client
    that has a token, and sends it with the next session: no server understands that.
    """
    client = MONAILabelClient(url, tempfile.mkdtemp(dir=folder))
    if client.auth_enabled():
        client.update_auth(client.auth_token("anna", token))
    return client


client = MONAILabelClient(url, tempfile.mkdtemp(dir=folder))
said = {"auth": client.auth_enabled()}
if said["auth"]:
    said["valid before"] = client.auth_valid_token()
    client.update_auth(client.auth_token("anna", token))
    said["valid after"] = client.auth_valid_token()
said["info"] = client.info()
file, params = client.infer("one", "sent", {}, file=image)
said["file"] = [file, params["label_names"]]
client.upload_image(image, "kept")
file, params = client.infer("one", "kept", {"result_extension": ".nrrd"})
said["nrrd"] = file
session = connected().create_session(image)
said["session"] = client.get_session(session["session_id"])
file, _ = client.infer("one", "", {}, session_id=session["session_id"])
said["of session"] = file
file, _ = client.infer("one", "inner/there.nii.gz", {})
said["of folder"] = file
said["saved"] = client.save_label("kept", file)
said["label"] = client.download_label("kept", "final")
said["datastore"] = client.datastore()["objects"]
said["next"] = client.next_sample("first", {})
said["removed"] = client.remove_session(session["session_id"])
for name, call in {
    "no model": lambda: client.infer("nobody", "kept", {}),
    "no image": lambda: client.infer("one", "nothing", {}),
    "no session": lambda: client.get_session(session["session_id"]),
}.items():
    try:
        call()
    except Exception as error:
        said[name] = error.msg
Path(folder, "said.json").write_text(json.dumps(said), encoding="utf-8")
