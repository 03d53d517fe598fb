"""What the options of the verbs mean: said by `trivox VERB --help` and by
`help(trivox.VERB)` alike. Nothing heavy is imported here.
"""

import inspect
from collections.abc import Callable
from textwrap import fill
from typing import TypeVar

from trivox.files import in_one_line

F = TypeVar("F", bound=Callable[..., object])

TEXTS = {
    "accession": "accession number of the studies",
    "node.aet": "title of the node; default: of the rules, else TRIVOX",
    "node.bind": "address to listen at; default: of the rules, else 127.0.0.1, which "
    "this machine alone reaches",
    "node.port": "to listen at; default: of the rules, else 11112",
    "dates": "of the studies: a day as 20260131, or a range as 20260101-20260131",
    "description": "of the studies; * and ? stand for any letters",
    "modality": "of a series in the studies: CT, MR, ...",
    "objects": "DICOM files, or folders of them",
    "once": "stop when all that is there was worked on; exit 1 if not all of it is "
    "done",
    "pacs_fetch.out": "folder for the objects; those that are there stay",
    "pacs_fetch.study": "UID of the study",
    "pacs_fetch.series": "UID of a series of it; repeatable; default: all",
    "pacs_find.series": "list the series of the studies",
    "pacs_find.study": "UID of a study",
    "pacs_watch.out": "folder for the queue, received objects and results",
    "node.out": "folder for the queue, received objects and results",
    "pacs": "name of the profile; default: the only one",
    "patient_id": "of the studies; * and ? stand for any letters",
    "patient_name": "of the studies; * and ? stand for any letters",
    "profiles": "TOML file of archives; default: ~/.config/trivox/pacs.toml",
    "rules": "TOML file that says which series go through which model",
    "batch_size": "patches a step, over all ranks",
    "case": "name of the case, if the input holds several",
    "cases": "text file with the names of the cases to predict, one a line",
    "check.out": "also write the findings as JSON",
    "classes": "CSV or JSON with the class of each case, columns case,class for example",
    "clinical": "columns of the table of classes that tell the class too, with commas "
    "between: age,sex",
    "predict.clinical": "CSV with the clinical columns that the model reads, a row a case; "
    "default: not known",
    "console": "where lines and progress go; default: nowhere",
    "cost": "also try every part of the training on a few cases, for about half a minute, "
    "and say what it will take: time, memory, energy, price",
    "convention": "rules to measure by",
    "ct": "CTs (NIfTI, NRRD, MetaImage, DICOM folder), or folders of them",
    "dataset": "dataset folder (BraTS, MSD, nnU-Net raw, images/ + labels/, class "
    "folders, X-ray exams) or manifest file",
    "detection": "also write candidates for lesions, each with one likelihood, and the "
    "likelihood of the case, the largest of them: labels that are lesions, with commas between, or "
    "auto (as the model says, or by name)",
    "detector": "pixels along an edge",
    "dicom": "DICOM files, or folders of DICOM files and of scans (NIfTI, NRRD, MetaImage)",
    "deidentify.out": "folder that is handed on, new or of the same key",
    "deidentify.key": "file of the secret that pseudonyms are made of; made if it is not "
    "there. Keep it, and the table beside it, apart from --out",
    "keep_dates": "leave dates of examinations as they are; by default they are taken out",
    "shift_dates": "move all dates of a patient into the past by the same secret number of "
    "days",
    "device": "auto, cpu, cuda, cuda:N or mps",
    "distill.dataset": "cases to learn from; default: those of the run",
    "distill.fold": "0 to 4, or all: each learns from its own network; default: all "
    "networks teach one student",
    "distill.model": "run or bundle folder that teaches; several vote",
    "distill.network": "network family of the student; default: unet-tiny; 'trivox "
    "info --help' lists them",
    "distill.out": "folder of the student's run",
    "drr.out": "folder of the X-ray dataset",
    "drr.seed": "of the noise",
    "export.out": "folder of the export, new or empty",
    "to": "for which programs: ONNX Runtime, OpenVINO, TensorRT, a Triton server, or a browser "
    "(an offline page)",
    "assets": "folder of the npm archives that --to web is made of; default: they are "
    "fetched once",
    "export.precision": "of the export; int8 is calibrated",
    "calibrate": "dataset whose images tell how values are distributed, for int8; "
    "default: the training cases of the run",
    "unlabelled": "images without labels to learn from as well: a folder, or a dataset "
    "whose labels are left aside",
    "verify": "dataset that the export is tried on; default: the validation cases of the "
    "run, phantoms where they are not at hand",
    "accept_loss": "keep an int8 export that loses more than half a Dice point",
    "engine": "what computes the networks: torch, openvino, onnx, or auto (the fastest "
    "here, measured once)",
    "epochs": "length of training in epochs",
    "explain.out": "folder of the figures and numbers",
    "fold": "0 to 4, or all",
    "format": "of the views",
    "freeze_encoder": "keep the pretrained encoder; 'freeze_encoder' sets for how long",
    "images": "folder of images, or a dataset whose labels are left aside",
    "info.input": "channels z y x, for a network name",
    "info.set": "option of a network as key=value, for example attention=none; "
    "repeatable",
    "input": "image, folder of images or dataset; X-ray exams for a reconstruction",
    "isocentre": "RAS mm, x y z; default: the CT's middle",
    "layers": "encoder stage to draw, 0 the finest; repeatable; default: all",
    "lr": "peak learning rate",
    "max_missed": "also write where each structure is if at most this share of its voxels "
    "may be missed on average, 0.01 to 0.5: CASE_sensitive.nii.gz",
    "missed": "of what --max-missed says the share: voxels, or lesions, which are missed "
    "where none of their voxels is marked",
    "mc_samples": "passes with random dropout, if the network was trained with it",
    "memory_gb": "memory to plan for",
    "metric": "what to rank by, repeatable; default: as the convention says",
    "metrics": "what evaluate wrote, a file a model",
    "weighted_intervals": "for scans that are not like the validation cases: intervals of "
    "volumes from these weighed by how much their images look like all scans given",
    "minutes": "or in minutes for each fold; the schedule follows. Validation and "
    "report come on top",
    "missing_channels": "cases that lack a channel: refuse, or take zeros for it",
    "model": "run or bundle folder, or a name that 'trivox models' lists; several vote",
    "models.fetch": "names to bring here first",
    "models.source": "folder or https address of the release; default: that of this "
    "version",
    "names": "of the models, with commas between; default: from the paths",
    "network": "network family; 'trivox info --help' lists them",
    "noise": "photons a pixel, such as 1e5; default: none",
    "out": "where the result goes",
    "overwrite": "predict finished cases again",
    "patch_size": "voxels, z y x: three numbers, or 96,96,96",
    "permutations": "of the test",
    "pixel": "mm; default: each patient fits",
    "plan": "a plan.json to use; default: plan now",
    "point": "voxel of the image file, z y x from 0; default: middle of the prediction",
    "precision": "of the arithmetic",
    "price_per_hour": "of the machine, in your unit; default: no price is said",
    "price_per_kwh": "of energy, in your unit; default: no price is said",
    "predictions": "folder of predicted label maps or volumes, with classes.csv if "
    "there is one",
    "prepared": "a folder from 'trivox preprocess'",
    "preset": "default: production, on a CPU quick_test",
    "pretrain.out": "folder of the pretraining, for --pretrained later",
    "pretrained": "run, bundle, ready model, pretraining or safetensors file to start "
    "from",
    "check.predictions": "run, or folder of label maps by networks that were not trained on "
    "these cases: labels that are probably wrong are listed",
    "check.page": "page with a picture of each of them, .html",
    "predict.format": "files of each case, with commas between: nifti, dicom-seg, rtstruct, sr "
    "(measurements, brings dicom-seg along), png, dicom-ct (of volumes); "
    "default: nifti, and dicom-seg for DICOM images",
    "seg_type": "of dicom-seg: a plane of bits for each label, whole numbers, or "
    "probabilities",
    "probabilities": "also write class probabilities",
    "rank.seed": "of the permutations",
    "recipe": "a recipe.json to start from, or the name of a recipe: brats",
    "references": "folder of reference label maps or CTs, a dataset, or a table of "
    "classes",
    "report.out": "default: report.html beside the source",
    "resume": "continue an interrupted run",
    "scales": "average over these sizes, for example 0.9,1,1.1",
    "sdd": "mm from the source to the detector",
    "secondary": "degrees, + cranial; one, or one a view",
    "reference": "label maps of the same cases by another rater; repeatable",
    "seed": "seed of everything random",
    "predict.device": "auto, cpu, cuda, cuda:N or mps; GPUs that share the cases: "
    "cuda:0,1",
    "predict.seed": "of the random dropout",
    "evaluate.set": "parameter of the convention as key=value, for example dilation=1; "
    "window=[-1024,1476] for CTs; repeatable",
    "evaluate.classes": "table of the cases' classes: CSV with columns case and class, "
    "or JSON",
    "series": "of DICOM folders that hold several: a series number, a UID, or rules with "
    "commas between: largest, thinnest, axial",
    "slice_tolerance": "mm by which distances of DICOM slices may differ and are read "
    "as even; default: 1 %",
    "set": "any recipe setting as key=value; repeatable",
    "serve.model": "run(s), bundle(s) or names that 'trivox models' lists; each is served "
    "under its name",
    "serve.profiles": "TOML file of archives that clients may search and take scans from; "
    "default: none",
    "serve.data": "folder of scans that clients may name by 'path' in place of sending "
    "them",
    "host": "where to listen; any but this machine needs --token-file",
    "port": "where to listen",
    "token_file": "file with a token a line; clients send one of them",
    "insecure_no_auth": "let everybody who reaches the server use it",
    "allow_host": "name that the server has, behind a proxy for example; repeatable",
    "tls_cert": "certificate (PEM) for https",
    "tls_key": "its private key (PEM)",
    "serve.workers": "jobs at a time",
    "serve.assets": "folder of the archive with NiiVue, which the page shows images with; default: "
    "fetched once",
    "state": "folder of the jobs and their files; default: in the user's cache",
    "queue": "open jobs at most; of one client half as many",
    "max_upload_gb": "largest upload",
    "job_minutes": "longest job",
    "job_memory_gb": "memory of a job; default: four fifths of the machine's for all",
    "keep_hours": "how long results are kept",
    "split_by": "what folds hold out: patients at random, or patients whose images look alike, as "
    "of another scanner (intensity); default: patient",
    "sod": "mm from the source to the isocentre",
    "source": "a run, or a metrics.json",
    "statistics": "also measure each label: volume, diameters, place and intensity, in "
    "statistics.json and statistics.csv",
    "subtype_results": "also write the classes as numbers: columns Names,Subtype",
    "task": "what to learn",
    "plan.task": "what is to be learnt; default: what the dataset suits",
    "preprocess.task": "what is to be learnt; default: what the dataset suits",
    "teacher_weight": "of the model's answers, 0 to 1; the labels have the rest; "
    "default: 0.5",
    "temperature": "that logits are divided by, so that rare answers count; default: 1",
    "tolerance_mm": "of the surface Dice (NSD) of convention trivox; default: 2",
    "train.out": "folder of the run",
    "tta": "average mirrored copies, along axes that training mirrored; default: as "
    "trained",
    "uncertainty": "also write how unsure the model is; repeatable",
    "views": "degrees: 0 AP, 90 source on the left, 180 PA",
    "watts_per_core": "of a core that computes, assumed where no counter of energy can be "
    "read; default: 12",
    "what": "a run, a bundle, a ready model, or a network name",
    "whole": "also measure all labels together, under this name: pancreas, say",
    "workers": "cases at a time",
}
"""By option, or by verb and option where a verb means something of its own."""


def text(verb: str, option: str) -> str:
    """What an option of a verb means."""
    return TEXTS.get(f"{verb}.{option}") or TEXTS[option]


def described(verb: F) -> F:
    """Add to a verb's docstring what its options mean, and let it say in one line what
    the system says of its files.
    """
    lines = [inspect.cleandoc(verb.__doc__ or ""), "", "Options:"]
    lines += [_line(verb, name) for name in inspect.signature(verb).parameters]
    verb.__doc__ = "\n".join(lines)
    return in_one_line()(verb)


def _line(verb: Callable[..., object], name: str) -> str:
    meaning = f"{name}: {text(verb.__name__, name)}"
    return fill(meaning, 88, initial_indent="  ", subsequent_indent="      ")
