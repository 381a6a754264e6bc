/* SPDX-License-Identifier: Apache-2.0
 *
 * A treap of address ranges that do not overlap.
 */
#include "memory.h"

static void update(struct range *node)
{
	uint64_t largest = node->kind == RANGE_FREE ? node->span : 0;
	if (node->left && node->left->largest > largest)
		largest = node->left->largest;
	if (node->right && node->right->largest > largest)
		largest = node->right->largest;
	node->largest = largest;
}

static struct range *rotate_right(struct range *node)
{
	struct range *top = node->left;
	node->left = top->right;
	top->right = node;
	update(node);
	update(top);
	return top;
}

static struct range *rotate_left(struct range *node)
{
	struct range *top = node->right;
	node->right = top->left;
	top->left = node;
	update(node);
	update(top);
	return top;
}

static struct range *insert(struct range *node, struct range *range)
{
	if (!node)
		return range;
	if (range->base < node->base) {
		node->left = insert(node->left, range);
		if (node->left->priority > node->priority)
			return rotate_right(node);
	} else {
		node->right = insert(node->right, range);
		if (node->right->priority > node->priority)
			return rotate_left(node);
	}
	update(node);
	return node;
}

void tree_insert(struct tree *tree, struct range *range)
{
	tree->random = tree->random * 1664525 + 1013904223;
	range->priority = tree->random;
	range->left = range->right = NULL;
	update(range);
	tree->root = insert(tree->root, range);
}

static struct range *merge(struct range *low, struct range *high)
{
	if (!low || !high)
		return low ? low : high;
	if (low->priority > high->priority) {
		low->right = merge(low->right, high);
		update(low);
		return low;
	}
	high->left = merge(low, high->left);
	update(high);
	return high;
}

static struct range *delete(struct range *node, struct range *range)
{
	if (node == range)
		return merge(node->left, node->right);
	if (range->base < node->base)
		node->left = delete(node->left, range);
	else
		node->right = delete(node->right, range);
	update(node);
	return node;
}

void tree_remove(struct tree *tree, struct range *range)
{
	tree->root = delete(tree->root, range);
}

static void refresh(struct range *node, const struct range *range)
{
	if (node != range)
		refresh(range->base < node->base ? node->left : node->right, range);
	update(node);
}

void tree_changed(struct tree *tree, struct range *range)
{
	refresh(tree->root, range);
}

struct range *tree_find(const struct tree *tree, uint64_t address)
{
	struct range *node = tree->root;
	while (node && (address < node->base || address - node->base >= node->span))
		node = address < node->base ? node->left : node->right;
	return node;
}

struct range *tree_before(const struct tree *tree, uint64_t base)
{
	struct range *node = tree->root, *best = NULL;
	while (node) {
		if (node->base < base) {
			best = node;
			node = node->right;
		} else {
			node = node->left;
		}
	}
	return best;
}

struct range *tree_after(const struct tree *tree, uint64_t base)
{
	struct range *node = tree->root, *best = NULL;
	while (node) {
		if (node->base > base) {
			best = node;
			node = node->left;
		} else {
			node = node->right;
		}
	}
	return best;
}

struct range *tree_first_fit(const struct tree *tree, uint64_t span)
{
	struct range *node = tree->root;
	if (!node || node->largest < span)
		return NULL;
	for (;;) {
		if (node->left && node->left->largest >= span)
			node = node->left;
		else if (node->kind == RANGE_FREE && node->span >= span)
			return node;
		else
			node = node->right;
	}
}
