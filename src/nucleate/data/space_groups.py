"""How often organic molecules crystallise in each space group with a whole molecule in the asymmetric unit.

Rounded from the statistics that the Cambridge Structural Database publishes for organic structures and from Brock &
Dunitz, Chem. Mater. 6, 1118 (1994). Groups in which molecules nearly always lie on a mirror plane (Pnma, P21/m,
C2/m) are left out: their crystals are found with whole molecules in a subgroup (P212121, Pna21, P21), and symmetry
detection names them afterwards. The same holds for molecules on inversion centres, for which `CENTRED` is the prior.
The lists are priors for a search, not measurements: each covers about 95 % of its class.
"""

RACEMIC: dict[str, float] = {
    **{"P21/c": 0.370, "P-1": 0.250, "C2/c": 0.085, "P212121": 0.070, "P21": 0.050, "Pbca": 0.040},
    **{"Pna21": 0.020, "Pca21": 0.010, "Cc": 0.012, "P1": 0.012, "Pbcn": 0.010, "C2": 0.008, "Pc": 0.008},
    **{"R-3": 0.006, "Fdd2": 0.005, "Pccn": 0.005, "P21212": 0.004, "P2/c": 0.004, "I41/a": 0.004},
}
"""Achiral molecules and racemates."""

ENANTIOPURE: dict[str, float] = {
    **{"P212121": 0.450, "P21": 0.360, "C2": 0.060, "P1": 0.055, "P21212": 0.022},
    **{"P41": 0.004, "P43": 0.004, "P31": 0.004, "P32": 0.004, "P41212": 0.006, "P43212": 0.006},
    **{"P3121": 0.003, "P3221": 0.003, "P61": 0.004, "P65": 0.004, "C2221": 0.004},
}
"""One enantiomer of a chiral molecule: only the Sohncke groups are open to it."""

CENTRED: dict[str, float] = {
    "P21/c": 0.56,
    "P-1": 0.26,
    "Pbca": 0.10,
    "C2/c": 0.04,
    "I41/a": 0.01,
    "R-3": 0.02,
}
"""Centrosymmetric molecules on inversion centres (Z' = 1/2): three quarters of such molecules choose this."""

CENTRED_SHARE = 0.75
