"""Run as a process of its own: decode DICOM files with GDCM, whose end, by whatever
damaged file, is then not the end of the run.

Reads the path of a file from each line of its input, as JSON, and answers with a line
of JSON (`shape`, `type`, or `error`) and then the pixels. Imports nothing of this
package, which would cost a second.
"""

import json
import sys

MEMORY_BYTES = 8 * 2**30


def limit_memory() -> None:
    """Let the process end where a damaged file asks for more than a scan can need."""
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """Decode file after file until the input ends."""
    import SimpleITK as sitk  # noqa: N813 - its name everywhere

    limit_memory()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    answers = sys.stdout.buffer
    for line in sys.stdin:
        pixels = b""
        try:
            image = sitk.ReadImage(json.loads(line), imageIO="GDCMImageIO")
            array = sitk.GetArrayFromImage(image)
            pixels = array.tobytes()
            answer = {"shape": array.shape, "type": array.dtype.str}
        except Exception as error:  # whatever it is, the parent says it
            answer = {"error": str(error)}
        answers.write(json.dumps(answer).encode() + b"\n" + pixels)
        answers.flush()


if __name__ == "__main__":
    main()
