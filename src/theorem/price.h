/* Tatonnement: prices follow the load until demand is even. They only ever differ from one another: their mean is 0. */
#ifndef THEOREM_PRICE_H
#define THEOREM_PRICE_H

typedef enum price_rule { PRICE_SIGN, PRICE_PROPORTIONAL } price_rule;

/* load [n] with mean 1; price [n] += rate * (load - 1) for rule PROPORTIONAL, rate * sign(load - 1) for SIGN; then the mean is
 * taken off. */
void price_follow(float *price, const float *load, int n, price_rule rule, float rate);

#endif
