# %% [markdown]
# # A first look at what a run has left
# Beside the `artifacts` of a finished DPO4Rec run (`make demo`). Editors open this file as a
# notebook; `python docs/first_look.py` prints it all.

# %%
import polars as pl

import recalign

run = recalign.open("artifacts").latest("dpo4rec")
print(run.name, run.page)

# %% [markdown]
# ## Did aligning help?

# %%
ndcg = run.results.filter(lists="catalogue", measure="NDCG", k=10)
print(ndcg.select("row", "mean", "base", "difference", "difference_low", "difference_high"))

# %% [markdown]
# ## What did the LLM learn from?
# The pair with the widest margin: two texts about one user, and how well the recommender ranked the
# user's next items after reading each.

# %%
margin = pl.col("rewards").list.max() - pl.col("rewards").list.min()
pair = run.pairs.sort(margin, descending=True).row(0, named=True)
chosen, rejected = pair["chosen"], pair["rejected"][0]
print(pair["prompt"])
for name, place in {"chosen": chosen, "rejected": rejected}.items():
    print(f"{name}, reward {pair['rewards'][place]:.3f}: {pair['completions'][place]}")

# %% [markdown]
# ## What do users get?

# %%
users = pl.read_parquet(run.tables / "users.parquet")["user_id"].head(50)
recs = run.recommend(users.to_list(), k=10)
print(recs.filter(rank=1).select("user_id", "title", "reasoning").head(5))

# %% [markdown]
# ## Do they all get the same?

# %%
listed = recs.group_by("title").agg(users=pl.len()).sort("users", descending=True)
print(f"{listed.height} titles in {users.len()} lists; the most common:")
print(listed.head(5))
