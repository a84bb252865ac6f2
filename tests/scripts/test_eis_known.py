"""What the user knows of a circuit: values on the command line, tables, and mistakes in them."""

import pytest

from runtime.errors import UsageError
from scripts.eis_known import split, table


def test_known_values_are_taken_out_of_the_arguments():
    rest, known = split(["a.csv", "known.Rsh=460", "top_k=3", "known.Ca=3e-6", "known.Rs=0", "known=t.csv"])
    assert rest == ["a.csv", "top_k=3", "known=t.csv"] and known == {"Rsh": 460.0, "Ca": 3e-6, "Rs": 0.0}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("known.Rhs=460", "no parameter 'Rhs'; nearest: Rs, Rsh"),
        ("known.Rsh=", "known Rsh must be a number of ohm above 0, such as 460, got ''"),
        ("known.Ca=0", "known Ca must be a number of farad above 0, such as 3e-6, got '0'"),
        ("known.Rs=-1", "known Rs must be a number of ohm at least 0.*got '-1'"),
        ("known.Rb=nan", "got 'nan'"),
        ("known.Rb=4,7", "got '4,7'"),
        ("known.Rb", "got ''"),
    ],
)
def test_mistakes_are_told(text, said):
    with pytest.raises(UsageError, match=said):
        split([text])


def test_a_table_gives_values_by_file(tmp_path):
    path = tmp_path / "known.csv"
    path.write_text("file,Rsh,Cb\na.csv,460,\nb.csv,1e3,2e-6\n", encoding="utf-8-sig")
    assert table(path) == {"a.csv": {"Rsh": 460.0}, "b.csv": {"Rsh": 1000.0, "Cb": 2e-6}}
    with pytest.raises(UsageError, match="no table .*nowhere.csv"):
        table(tmp_path / "nowhere.csv")
    path.write_text("name,Rsh\na,1\n")
    with pytest.raises(UsageError, match="needs a column 'file' .*got name, Rsh"):
        table(path)
    path.write_text("file,RsolA\na,1\n")
    with pytest.raises(UsageError, match="no parameter 'RsolA'"):
        table(path)
    path.write_text("file,Rsh\na,one\n")
    with pytest.raises(UsageError, match="got 'one'"):
        table(path)
