"""Names that other tools of the field give to keys of dataset.yaml."""

from __future__ import annotations

import re

# In full, from the top level; a sample's own keys stand below ``samples[]``.
KEYS = {
    "branches.exclude": "blacklist drop drop_branches exclude_branches ignore veto",
    "branches.include": "columns features feature_names include_branches input_features inputs "
    "input_variables predictors train_variables training_variables variables vars whitelist",
    "branches.identifiers": "event_id ids index keys",
    "cache": "block_cache caching in_memory",
    "cluster.address": "client dask dask_scheduler master scheduler scheduler_address",
    "cluster.memory_limit": "mem memory ram worker_memory",
    "cluster.workers": "cores cpus n_jobs n_workers njobs num_workers nworkers processes threads",
    "collections": "collection groups jagged_groups",
    "derive": "aliases define defines derived new_branches new_variables",
    "encode.normalisation": "normalise normalization normalize preprocess preprocessing "
    "scale scaler scaling standardize transform",
    "encode.out_of_range": "clip clipping overflow",
    "encode.sort": "order order_by sort_by sorting",
    "encode.width": "length max_length max_num maxlen max_objects max_width pad padding widths",
    "friends": "add_friend add_friends friend friend_trees friendtrees",
    "image": "image_size images",
    "luminosity": "lumi lumi_weight",
    "max_events": "entry_stop entrysteps events_limit limit max_entries maxevents n_events nevents "
    "nevts num_events",
    "model": "architecture classifier dnn estimator net network nn",
    "model.callable": "build class function model_file model_path",
    "model.kwargs": "args arguments hyperparameters model_kwargs options params parameters",
    "name": "id model_name project title",
    "objects": "object_cuts object_selection",
    "on_bad_file": "bad_files on_error skip_bad_files skipbadfiles",
    "output": "out out_dir outdir output_dir output_path outputdir save_dir save_path workdir",
    "partition.max_events": "block_size chunk chunk_size chunks chunksize partition_size step_size",
    "samples": "data dataset datasets fileset processes train_files",
    "samples[].cross_section": "cross_sections crosssection xs xsec xsection",
    "samples[].files": "file file_list filelist filename filenames path paths root_files uri url "
    "urls",
    "samples[].label": "class class_id class_label is_signal labels type y",
    "samples[].name": "process process_name",
    "samples[].sum_weights": "genweight_sum nevents_generated sumw sumweights",
    "samples[].tree": "treename tree_name tree_path treepath ttree",
    "samples[].weight": "sample_weight scale_factor sf",
    "seed": "manual_seed random_seed random_state rng_seed",
    "select": "cut cuts event_selection filter filters preselection query selection",
    "specs.cache": "cache_dir specs_cache",
    "split": "data_split fractions splits test_size train_size train_test_split validation_split",
    "split.test": "test_fraction",
    "split.train": "train_fraction",
    "split.validation": "val valid val_fraction val_split validation_fraction",
    "target": "label_column objective prediction_target target_column task y_true",
    "target.branch": "expression target_branch variable",
    "training.loss": "criterion loss loss_fn loss_function",
    "training": "fit train trainer",
    "training.accumulate": "accum_steps accumulate_grad_batches accumulation accumulation_steps "
    "grad_accum gradient_accumulation gradient_accumulation_steps",
    "training.balance": "balanced class_weight class_weights reweight reweighting",
    "training.batch_size": "batch batchsize bs minibatch minibatch_size train_batch_size",
    "training.chunk_events": "chunk_size nchunk",
    "training.clip_norm": "clip clip_grad clip_gradients grad_clip gradient_clip_val max_grad_norm",
    "training.device": "accelerator cuda gpu use_gpu",
    "training.early_stopping": "early_stop patience",
    "training.ema": "ema_decay moving_average",
    "training.epochs": "epoch max_epochs n_epochs nepochs num_epochs",
    "training.hooks": "callback callbacks",
    "training.learning_rate": "alpha eta learn_rate learningrate lr step",
    "training.max_restarts": "max_retries restarts retries",
    "training.optimiser": "optim optimizer",
    "training.precision": "amp autocast bf16 fp16 half mixed_precision",
    "training.ranks": "ddp gpus n_gpus ngpu nproc nproc_per_node num_gpus world_size",
    "training.scheduler": "gamma lr_schedule lr_scheduler sched scheduler_name warmup",
    "training.warm_start": "checkpoint finetune init_from load_weights pretrained weights_from",
    "tree": "dir ntuple table tree_name tree_path treename treepath ttree",
    "weight": "event_weight event_weights gen_weight sample_weights weight_branch weight_column "
    "weights",
}
# What has no key.
_ABSENT = {
    "augment augmentation": "a function (key 'function') may change events",
    "betas momentum weight_decay wd": "these are arguments of the optimiser: "
    "training.optimiser.kwargs",
    "device": "it is training.device",
    "dropout activation hidden layers n_layers units": "these are arguments of the network: "
    "model.kwargs",
    "metrics": "the report has those that fit the target",
    "num_classes n_classes": "the labels of the samples, or target.classes, tell it",
    "shuffle": "events are always shuffled, by seed",
    "log_level log verbose verbosity": "it is an option of the command line, see --help",
}


def _folded(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def _by_name(table: dict[str, str]) -> dict[str, list[str]]:
    keys: dict[str, list[str]] = {}
    for key, names in table.items():
        for name in names.split():
            places = keys.setdefault(_folded(name), [])
            if key not in places:
                places.append(key)
    return keys


_MEANT = _by_name(KEYS)
_REASONS = {_folded(name): why for names, why in _ABSENT.items() for name in names.split()}


def meant(name: str, section: str, keys: frozenset[str]) -> str | None:
    """The key that is called ``name`` elsewhere; of several, the one in ``section``.

    Parameters
    ----------
    name : str
        The unknown key.
    section : str
        Where it stands: empty at the top level, ``samples[]`` in a sample.
    keys : frozenset of str
        The keys that exist, in full.
    """
    places = [key for key in _MEANT.get(_folded(name), ()) if key in keys]
    here = [key for key in places if key.rpartition(".")[0] == section]
    return next(iter([*here, *places]), None)


def absent(name: str) -> str | None:
    """Why there is no key of this name, or None when nothing is known of it."""
    return _REASONS.get(_folded(name))
