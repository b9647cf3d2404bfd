"""The names that a program may rely on: module -> names. `docs/api.md` says what each is.

Everything else may change without notice. A name leaves this list only with a new minor version, which the changelog
says.
"""

PUBLIC: dict[str, tuple[str, ...]] = {
    # geometry
    "nucleate.geometry.manifold": ("Manifold", "Euclidean", "Product"),
    "nucleate.geometry.torus": ("Torus",),
    "nucleate.geometry.so3": ("SO3", "random_rotation", "rotation_exp", "rotation_log", "kabsch"),
    "nucleate.geometry.lattice": (
        "LogLattice",
        "lattice_from_parameters",
        "parameters_from_lattice",
        "log_coordinates",
        "lattice_from_log",
        "niggli_reduce",
    ),
    "nucleate.geometry.symmetry": ("SpaceGroup", "allowed_cell", "strain_basis"),
    # crystal
    "nucleate.crystal.molecule": ("Molecule",),
    "nucleate.crystal.crystal": ("Crystal",),
    "nucleate.crystal.packing": ("Packings",),
    "nucleate.crystal.sites": ("Sites",),
    "nucleate.crystal.io": (
        "read_molecule",
        "read_stoichiometry",
        "read_molecule_list",
        "read_crystal",
        "read_extxyz",
        "write_extxyz",
        "write_cif",
    ),
    "nucleate.crystal.sites_cif": ("write_sites_cif",),
    "nucleate.crystal.rigid": ("species_from_crystal", "represent_rigid", "normalise_hydrogens"),
    "nucleate.crystal.standardise": ("find_symmetry", "represent_symmetric", "primitive_niggli"),
    # physics
    "nucleate.physics.energy": ("EnergyModel", "Energy", "Capability", "ProcessSettings", "energy_model"),
    "nucleate.physics.forcefield": ("ForceField",),
    "nucleate.physics.minimise": ("minimise", "Minimised"),
    "nucleate.physics.relax_atoms": ("relax_atoms", "Relaxed", "RelaxAtomsSettings"),
    "nucleate.physics.self_test": ("self_test", "SelfTest"),
    # metrics
    "nucleate.metrics.rate": ("Rate",),
    "nucleate.metrics.criteria": ("Criterion", "Rung", "Verdict", "Judge", "criterion"),
    "nucleate.metrics.packing": ("PackingReference", "PackingMatch", "compare_packing"),
    "nucleate.metrics.structure_matcher": ("StructureMatching", "StructureMatch", "MatcherSettings"),
    "nucleate.metrics.duplicates": ("find_duplicates", "Duplicates", "DuplicateSettings"),
    "nucleate.metrics.control": ("random_poses",),
    "nucleate.metrics.clashes": ("has_clash", "closest_contact"),
    "nucleate.metrics.volume": ("volume_error", "volume_deviation"),
    "nucleate.metrics.pxrd": ("powder_pattern", "PowderPattern"),
    "nucleate.metrics.powder_similarity": (
        "powder_similarity",
        "variable_cell_similarity",
        "read_pattern",
    ),
    "nucleate.metrics.conformers": ("coverage", "Coverage"),
    "nucleate.metrics.free_energy": ("one_sided", "two_sided", "FreeEnergy"),
    # data
    "nucleate.data.packed": ("PackedCrystal", "read_crystals", "write_shard"),
    "nucleate.data.conformers": ("ConformerSet", "read_conformers", "write_conformers"),
    "nucleate.data.shard_files": ("ShardKind",),
    "nucleate.data.splits": ("split_of", "train_and_val"),
    "nucleate.data.predictions": ("Sample", "read_predictions", "read_references"),
    # generative
    "nucleate.generative.flow_matching": ("FlowMatching", "Euler", "Heun", "Uniform"),
    "nucleate.generative.training": ("fit", "Fitted", "Trainable", "Batches"),
    "nucleate.generative.train_settings": ("TrainSettings",),
    "nucleate.generative.epochs": ("EpochBatches",),
    "nucleate.generative.system": ("System", "Lesson"),
    # models
    "nucleate.models.molcrystalflow": ("PoseFlow",),
    "nucleate.models.crystalflow": ("CrystalFlow",),
    "nucleate.models.conformer_flow": ("ConformerFlow",),
    "nucleate.models.confgf": ("ConfGF",),
    "nucleate.models.conformers": ("ConformerModel",),
    "nucleate.models.crystallization": ("Crystallizer",),
    "nucleate.models.rigid_body_flow": ("RigidBodyFlow",),
    # weights
    "nucleate.weights": ("find_weights", "read_weights", "Weights"),
    # report
    "nucleate.report": ("write_any_report",),
    # pipeline
    "nucleate.pipeline.predict": ("predict", "PredictSettings", "Prediction"),
    "nucleate.pipeline.predict_list": ("predict_list",),
    "nucleate.pipeline.conform": ("conform", "ConformSettings", "Conformers"),
    "nucleate.pipeline.ensemble": ("ensemble", "EnsembleSettings", "Ensemble"),
    "nucleate.pipeline.generate": ("Composition", "Arm", "arms", "random_packings"),
    "nucleate.pipeline.generate_files": ("generate_files", "GenerateSettings"),
    "nucleate.pipeline.generate_inorganic": ("generate_inorganic", "InorganicSettings"),
    "nucleate.pipeline.search": ("search", "SearchResult"),
    "nucleate.pipeline.units": ("SearchSettings",),
    "nucleate.pipeline.relax": ("relax", "RelaxSettings"),
    "nucleate.pipeline.rank": ("rerank", "RankSettings"),
    "nucleate.pipeline.match": ("match_files",),
    "nucleate.pipeline.deduplicate_files": ("deduplicate_files",),
    "nucleate.pipeline.evaluate": ("evaluate", "EvaluateSettings", "Evaluation"),
    "nucleate.pipeline.evaluate_inorganic": ("evaluate_inorganic", "InorganicEvaluation"),
    "nucleate.pipeline.crystallize": ("crystallize", "CrystallizeSettings"),
    "nucleate.pipeline.free_energy": ("free_energy", "FreeEnergySettings", "FreeEnergyRun"),
    "nucleate.pipeline.synthesize": ("synthesize", "SynthesizeSettings"),
    "nucleate.pipeline.import_crystals": ("import_crystals", "ImportSettings"),
    "nucleate.pipeline.conformer_data": ("make_conformers", "ConformerDataSettings"),
    "nucleate.pipeline.cluster_data": ("make_clusters", "ClusterSettings"),
    "nucleate.pipeline.systems": ("system_named",),
    "nucleate.pipeline.train": ("train", "Trained", "load_weights"),
    # every room
    "nucleate.errors": ("NucleateError", "InputError", "EnergyModelError"),
    "nucleate.testing": ("assert_energy_model", "disguised"),
}
