"""Runs the Python client printed in docs/protocol.md against a coordinator: DOC PROTO RUN_DIR WORK_DIR.

Exit status 77: protoc or the protobuf module is missing.
"""
import pathlib
import re
import shutil
import subprocess
import sys

doc, proto, run_dir, work_dir = sys.argv[1:]
try:
    import google.protobuf  # noqa: F401
except ImportError:
    sys.exit(77)
if shutil.which("protoc") is None:
    sys.exit(77)
code = re.search(r"```python\n(.*?)```", pathlib.Path(doc).read_text(), re.S).group(1)
pathlib.Path(work_dir, "client.py").write_text(code)
subprocess.run(["protoc", "--python_out=" + work_dir, "--proto_path=" + str(pathlib.Path(proto).parent),
                pathlib.Path(proto).name], check=True)
out = subprocess.run([sys.executable, "client.py", run_dir], cwd=work_dir, check=True, text=True,
                     stdout=subprocess.PIPE, timeout=60).stdout
expected = """RUN_STATE_TRAINING step 3 of 50
rank 1 on host: PHASE_STARTING
rank 2 on host: PHASE_STARTING
"""
if out != expected:
    sys.exit(f"the client printed:\n{out}\nexpected:\n{expected}")
