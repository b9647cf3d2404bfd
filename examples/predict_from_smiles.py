"""From a SMILES to ranked crystals, and what is in the answer.

python examples/predict_from_smiles.py
"""

from pathlib import Path

from nucleate.pipeline.predict import PredictSettings, predict


def main(n: int = 2000, workers: int = 2, folder: Path = Path("results/urea")) -> None:
    settings = PredictSettings(n=n, workers=workers, space_groups="common", seed=0)
    prediction = predict("NC(N)=O", settings, folder, name="urea")
    for row in prediction.rows[:5]:
        print(
            f"{row['rank']:2d}  {row['energy_kj_mol']:5.2f} kJ/mol  {row['density_g_cm3']:.3f} g/cm³  "
            f"{row['space_group_symbol']:8s} Z = {row['z']}, Z' = {row['z_prime']:g}, "
            f"found {row['n_duplicates'] + 1} times"
        )
    print(prediction.run["convergence"]["text"])
    print("report:", prediction.report)


if __name__ == "__main__":
    main()
